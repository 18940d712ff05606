# SPDX-License-Identifier: Apache-2.0
"""``vllm-build jobs``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vllm_build.commands.target_options import add_target, target
from vllm_build.kernels import kernels_table
from vllm_build.kernels.kernel_choice import Choice, why_not_chosen
from vllm_build.kernels.kernel_records import MEMORY_CLASSES
from vllm_build.native import job_count
from vllm_build.settings.value_kinds import COUNT, checked
from vllm_build.util import paths
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console

HELP = "Show how many compilers would run at once, and why."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_target(parser)
    parser.add_argument("--cpus", help="number of CPUs; default: those that this process may use")
    parser.add_argument(
        "--memory-gib", help="memory in GiB; default: the memory that this process may use"
    )


def _bytes(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,9})?", text) and float(text) > 0:
        return int(float(text) * job_count.GIB)
    raise ConfigurationError(
        f"--memory-gib={text!r} is not valid", expected="a number of GiB above 0, such as 16 or 1.5"
    )


def run(arguments: Namespace, console: Console) -> int:
    """Show the number of jobs for a device, given its heavy units in the table."""
    settings = arguments.invocation.settings
    cpus = None if arguments.cpus is None else checked("--cpus", COUNT, arguments.cpus)
    memory = None if arguments.memory_gib is None else _bytes(arguments.memory_gib)
    device, version = target(arguments, settings)
    # Read from the table, not from a plan, so the answer does not depend on architectures and
    # devices without kernels get one, too.
    table = kernels_table.load(paths.source_root())
    extensions = {extension.name: extension for extension in table.extensions}
    choice = Choice.of(settings)
    heavy = [
        kernel
        for kernel in table.kernels
        if device in kernel.devices
        and kernel.memory != "ordinary"
        and why_not_chosen(kernel, extensions[kernel.extension], device, choice) is None
    ]
    wanted, variable = settings.jobs
    chosen = job_count.decide(
        wanted,
        settings.nvcc_threads,
        device=device,
        toolkit_version=version,
        heavy_units=sum(len(kernel.sources + kernel.third_party_sources) for kernel in heavy),
        heavy=max(
            (MEMORY_CLASSES[kernel.memory] for kernel in heavy), default=MEMORY_CLASSES["heavy"]
        ),
        cpus=cpus,
        memory=memory,
        source=variable,
    )
    if not console.json_mode:
        for reason in chosen.why:
            console.info(reason)
    console.json(
        {
            "jobs": chosen.jobs,
            "nvcc_threads": chosen.nvcc_threads,
            "heavy_jobs": chosen.heavy_jobs,
            "why": list(chosen.why),
        }
    )
    return 0
