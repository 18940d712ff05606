# SPDX-License-Identifier: Apache-2.0
"""``vllm-build archs``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build import archs, gfx

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.console import Console

NAME = "archs"
HELP = "Show what a kernel written for some GPU architectures is compiled for when a build is for others."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--kernel", required=True, help="architectures that the kernel is written for, such as '8.0;9.0a' or 'gfx90a'")
    parser.add_argument("--targets", required=True, help="architectures that the build is for, such as '9.0;12.0+PTX'")


def run(arguments: Namespace, console: Console) -> int:
    """Match the two lists; AMD's when the kernel's begins like one."""
    if arguments.kernel.strip().startswith("gfx"):
        compiled, unserved = gfx.match(gfx.parse(arguments.kernel, "--kernel"), gfx.parse(arguments.targets, "--targets"))
    else:
        found = archs.match(archs.parse(arguments.kernel, "--kernel"), archs.parse(arguments.targets, "--targets"))
        compiled, unserved = tuple(map(str, found.archs)), tuple(map(str, found.unserved))
    console.json({"archs": list(compiled), "unserved": list(unserved)})
    return 0
