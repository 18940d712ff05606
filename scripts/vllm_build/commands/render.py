# SPDX-License-Identifier: Apache-2.0
"""``vllm-build render``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build import paths
from vllm_build.commands._common import add_channel, request
from vllm_build.conda import package, variants

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.console import Console

NAME = "render"
HELP = "Show the packages that a variant gives, without building."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("variant", nargs="*", help="variants; default: all")
    add_channel(parser)


def run(arguments: Namespace, console: Console) -> int:
    """Show what each variant gives."""
    names = arguments.variant or variants.names(paths.source_root())
    found = {name: package.expected(request(arguments, name, console)) for name in names}
    if console.json_mode:
        console.json({name: [output.as_dict() for output in outputs] for name, outputs in found.items()})
    for name, outputs in found.items():
        console.table(name, ["package", "subdir", "requires"], [[o.filename, o.subdir, "\n".join(o.run)] for o in outputs])
    return 0
