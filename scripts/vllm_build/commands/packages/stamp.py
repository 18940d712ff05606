# SPDX-License-Identifier: Apache-2.0
"""``vllm-build stamp``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.digests import recipe_stamp
from vllm_build.util import paths

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console

HELP = "Write the version and digests of the tree into recipe/variants.yaml."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--check", action="store_true", help="compare the file with the tree without writing it"
    )


def run(arguments: Namespace, console: Console) -> int:
    """Write or compare recipe/variants.yaml."""
    root = paths.source_root()
    if arguments.check:
        recipe_stamp.check(root)
    elif recipe_stamp.write(root):
        console.info("recipe/variants.yaml written")
    if console.json_mode:
        console.json(recipe_stamp.values(root))
    return 0
