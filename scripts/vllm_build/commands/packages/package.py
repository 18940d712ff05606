# SPDX-License-Identifier: Apache-2.0
"""``vllm-build package``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.commands.package_options import add_channel, request
from vllm_build.conda import package_job
from vllm_build.settings import other_variables
from vllm_build.util import path_rules, paths

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console

NAME = "package"
#: Seconds of processor time from which a unit is listed. The JSON document has all units.
_SLOW = 20
HELP = "Build the conda packages of a variant, install them into a clean prefix and run them."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("variant", help="a name of variants/, or the path of a variant file")
    add_channel(parser)
    parser.add_argument(
        "--reuse",
        metavar="CHANNELS",
        help="conda channels (paths or URLs) whose packages are used instead of a build if they "
        "are exactly those of this tree; default: $REUSE",
    )


def run(arguments: Namespace, console: Console) -> int:
    """Build, install and run the packages of one variant."""
    path_rules.require_packaging(arguments.output, paths.cache_root())
    environ = arguments.invocation.environ
    for sentence in (
        *other_variables.ignored(environ),
        *other_variables.misspelt(environ),
        *other_variables.not_for_packages(environ),
    ):
        console.warn(sentence)
    result = package_job.package(request(arguments, arguments.variant, console), console)
    console.table(
        "stages",
        ["stage", "seconds"],
        [[title, f"{seconds:.1f}"] for title, seconds in result["seconds"].items()],
    )
    units = [
        [
            u["unit"],
            f"{u['cpu_seconds']:.0f}",
            f"{u['peak_bytes'] / 2**30:.1f}",
            f"{u['object_bytes'] / 2**20:.1f}",
        ]
        for u in result["units"]
        if u["cpu_seconds"] >= _SLOW
    ]
    if units:
        console.table(
            f"units that took {_SLOW} s or more",
            ["unit", "processor seconds", "GiB", "MiB of object file"],
            units,
        )
    console.table(
        "packages", ["file", "sha256"], [[p["path"], p["sha256"]] for p in result["packages"]]
    )
    if console.json_mode:
        console.json(result)
    else:
        console.info("install with:")
        console.output(result["install"])
    return 0
