# SPDX-License-Identifier: Apache-2.0
"""``vllm-build plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm_build.commands.explain import plan_text
from vllm_build.commands.target_options import add_target, target
from vllm_build.kernels import kernel_choice, kernels_table, plan_resolver
from vllm_build.native import job_count, unit_estimates
from vllm_build.target import requested_archs
from vllm_build.util import paths

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from packaging.version import Version

    from vllm_build.kernels.build_plan import Plan
    from vllm_build.util.console import Console

HELP = (
    "Show which kernels are built for which architectures, and why the others are left out; -v "
    "lists their sources."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_target(parser)
    parser.add_argument(
        "--arch-list",
        help="GPU architectures, such as '8.0;9.0a' or 'gfx90a;gfx942'; default: those of the "
        "environment, else all",
    )
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="add the processor time, the time on this machine and the peak of memory, from the "
        "measured units in " + unit_estimates.TABLE,
    )


def _estimate(
    plan: Plan, arguments: Namespace, version: Version | None, console: Console
) -> dict[str, Any]:
    """Show what a build of the plan would take here; returns it as data."""
    jobs = job_count.of_plan(plan, arguments.invocation.settings, version)
    found = unit_estimates.estimate(paths.source_root(), plan, jobs)
    console.text(unit_estimates.summary(found, jobs), [])
    return {
        "units": len(found.units),
        "unmeasured": found.guessed,
        "cpu_seconds": round(found.cpu_seconds),
        "wall_seconds": round(found.wall_seconds),
        "jobs": jobs.jobs,
        "heavy_jobs": jobs.heavy_jobs,
        "peak_bytes": found.peak_bytes,
    }


def run(arguments: Namespace, console: Console) -> int:
    """Show the plan of a device, and fail if it compiles nothing although it should."""
    settings, table = arguments.invocation.settings, kernels_table.load(paths.source_root())
    device, version = target(arguments, settings)
    text, source = (arguments.arch_list, "--arch-list")
    if text is None:
        text, source = requested_archs.requested(device, settings) or (None, "")
    found = plan_resolver.survey(
        table,
        device,
        toolkit_version=version,
        arch_list=text,
        arch_source=source,
        choice=kernel_choice.Choice.of(settings),
    )
    console.text(
        plan_text.title(found), plan_text.lines(found, console.width, verbose=console.verbose)
    )
    plan_resolver.require_kernels(found, table)
    document: dict[str, Any] = {
        "device": device,
        "toolkit_version": found.toolkit_version,
        "targets": list(found.targets),
    }
    if arguments.estimate:
        document["estimate"] = _estimate(found, arguments, version, console)
    if console.json_mode:
        libraries = [
            {
                "name": extension.name,
                "component": extension.component,
                "optional": extension.optional,
                "kernels": [kernel.name for kernel in extension.kernels],
            }
            for extension in found.extensions
        ]
        console.json(document | {"extensions": libraries, "kernels": found.rows()})
    return 0
