# SPDX-License-Identifier: Apache-2.0
"""``vllm-build render``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.commands.package_options import add_channel, request
from vllm_build.conda import package_request, variants
from vllm_build.util import paths, text_table

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.conda.recipe_outputs import Output
    from vllm_build.util.console import Console

HELP = "Show the packages of a variant without building them."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("variant", nargs="*", help="variants; default: all")
    add_channel(parser)


#: Shown below the packages: requirements that are known only after solving.
_ADDED = (
    "A build also adds the requirements that compilers and libraries export to packages with "
    "compiled files, such as libgcc, libstdcxx and __glibc."
)


def _fields(output: Output) -> list[tuple[str, str]]:
    return [
        ("subdir", output.subdir),
        ("requires", "\n".join(output.run)),
        ("constrains", "\n".join(output.constrains)),
        (
            "build number",
            f"{output.number}, low priority: solvers prefer any other build that fits"
            if output.behind
            else str(output.number),
        ),
    ]


def run(arguments: Namespace, console: Console) -> int:
    """Show the packages of each variant."""
    names = arguments.variant or variants.names(paths.source_root())
    found = {name: package_request.expected(request(arguments, name, console)) for name in names}
    if console.json_mode:
        console.json(
            {name: [output.as_dict() for output in outputs] for name, outputs in found.items()}
        )
    for name, outputs in found.items():
        console.entries(name, [(output.filename, _fields(output)) for output in outputs])
    if not console.json_mode and any(
        not output.noarch for outputs in found.values() for output in outputs
    ):
        for line in text_table.wrap(_ADDED, console.width):
            console.info(line)
    return 0
