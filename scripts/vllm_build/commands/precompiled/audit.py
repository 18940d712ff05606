# SPDX-License-Identifier: Apache-2.0
"""``vllm-build audit``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from vllm_build.commands.target_options import add_target, target
from vllm_build.kernels import kernel_choice, kernels_table, plan_resolver
from vllm_build.reuse.foreign import foreign_reuse
from vllm_build.reuse.net.reuse_context import Context, Meter
from vllm_build.reuse.records.fitness import Machine
from vllm_build.settings.value_kinds import SHA256, checked
from vllm_build.target import device, requested_archs
from vllm_build.util import paths

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console

HELP = (
    "Show whether an official vLLM wheel could replace a build of this tree; loads its libraries "
    "and writes only to the cache."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("wheel", help="path or URL of the wheel")
    parser.add_argument(
        "--sha256", help="sha256 of the wheel; a remote wheel is then downloaded as a whole"
    )
    add_target(parser)
    parser.add_argument(
        "--stand-ins",
        action="store_true",
        help="replace the libraries of a missing driver by empty ones, so that the ops can be read",
    )


def run(arguments: Namespace, console: Console) -> int:
    """Show the result of the audit, and fail if a build would refuse the wheel."""
    sha256 = None if arguments.sha256 is None else checked("--sha256", SHA256, arguments.sha256)
    settings, root = arguments.invocation.settings, paths.source_root()
    name, release = target(arguments, settings)
    choice = kernel_choice.Choice.of(foreign_reuse.with_every_output(settings))
    archs, source = requested_archs.requested(name, settings) or (None, "")
    planned = plan_resolver.survey(
        kernels_table.load(root),
        name,
        toolkit_version=release,
        arch_list=archs,
        arch_source=source,
        choice=choice,
    )
    machine = dataclasses.replace(
        Machine.here(device.assume(name, settings)), toolkit=release if planned.targets else None
    )
    with console.transfer("libraries") as counter:
        meter = Meter(counter.advance)
        context = Context.of_settings(settings, meter)
        with context.cache.in_use():
            found = foreign_reuse.audit(
                context,
                root,
                planned,
                machine,
                arguments.wheel,
                sha256,
                inherited=settings.inherited,
                stand_ins=arguments.stand_ins,
            )
    rows = [dataclasses.asdict(row) for row in found.audit.rows]
    if console.json_mode:
        console.json(
            {
                "wheel": found.title,
                "rows": rows,
                "unusable": found.audit.unusable,
                "bytes": meter.size,
            }
        )
    console.table(
        f"audit of {found.title} for {name}",
        ["verdict", "check", "found", "needed"],
        [[r["verdict"], r["check"], r["found"], r["needed"]] for r in rows],
    )
    if meter.size:
        console.info(meter.summary())
    foreign_reuse.require(found, settings.precompiled_foreign, table=False)
    return 0
