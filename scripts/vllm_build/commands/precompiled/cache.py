# SPDX-License-Identifier: Apache-2.0
"""``vllm-build cache``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.commands.package_options import parse_days
from vllm_build.reuse.net.reuse_cache import Cache

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console

HELP = "Show or empty the cache of reused kernels, which all checkouts share."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "action", choices=("info", "clean"), help="info: show its content; clean: remove it"
    )
    parser.add_argument(
        "--older-than",
        metavar="DAYS",
        default="0",
        help="clean: remove only files that were not used for so many days",
    )


def run(arguments: Namespace, console: Console) -> int:
    """Show or empty the cache."""
    cache = Cache()
    usages = (
        cache.usage()
        if arguments.action == "info"
        else [cache.clean(parse_days(arguments.older_than))]
    )
    if console.json_mode:
        console.json({"folder": str(cache.root), "usage": [vars(usage) for usage in usages]})
    else:
        rows = [[usage.folder, str(usage.files), f"{usage.size / 1e6:.1f} MB"] for usage in usages]
        console.table(str(cache.root), ["folder", "files", "size"], rows)
    return 0
