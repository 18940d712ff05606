# SPDX-License-Identifier: Apache-2.0
"""``vllm-build archs``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.architectures import gpu_targets

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console

HELP = (
    "Show for which GPU architectures a kernel is compiled, given those that it is written for and "
    "those of the build."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--kernel",
        required=True,
        help="architectures that the kernel is written for, such as '8.0;9.0a' or 'gfx90a'",
    )
    parser.add_argument(
        "--targets",
        required=True,
        help="architectures that the build is for, such as '9.0;12.0+PTX'",
    )


def run(arguments: Namespace, console: Console) -> int:
    """Match two lists in the spelling of a build's lists; those of AMD begin with ``gfx``."""
    device = "rocm" if arguments.kernel.strip().lower().startswith("gfx") else "cuda"
    record = gpu_targets.parse(device, arguments.kernel, "--kernel")
    compiled, unserved = gpu_targets.match(
        device, record, gpu_targets.parse(device, arguments.targets, "--targets")
    )
    console.json({"archs": list(compiled), "unserved": list(unserved)})
    return 0
