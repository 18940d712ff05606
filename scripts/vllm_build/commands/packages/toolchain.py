# SPDX-License-Identifier: Apache-2.0
"""``vllm-build toolchain``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from vllm_build.commands.package_options import parse_days
from vllm_build.toolchain import channel_build, channel_views, lock_update
from vllm_build.util import path_rules, paths
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console

HELP = "Build the changed packages of the local toolchain channel."
_KEPT_DAYS = "30"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "ids", nargs="*", help="builds to make, including their dependencies; default: all"
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--update",
        action="store_true",
        help="lock the current versions of the mirrors instead of building",
    )
    action.add_argument(
        "--clean",
        action="store_true",
        help="remove packages that no checkout has used for a while instead of building",
    )
    parser.add_argument(
        "--older-than",
        metavar="DAYS",
        help=f"with --clean: remove what was unused for so many days; default: {_KEPT_DAYS}",
    )


def _clean(arguments: Namespace, console: Console) -> int:
    if arguments.ids:
        raise ConfigurationError(
            f"--clean does not accept names of builds: {' '.join(arguments.ids)}",
            expected="--older-than DAYS, or nothing",
        )
    cleaned = channel_views.clean(parse_days(arguments.older_than or _KEPT_DAYS))
    console.info(
        f"removed {cleaned.packages} packages ({cleaned.size / 1e6:.1f} MB) and {cleaned.views} "
        "unused views of the channel"
    )
    if console.json_mode:
        console.json({"path": str(paths.toolchain_channel()), **asdict(cleaned)})
    return 0


def run(arguments: Namespace, console: Console) -> int:
    """Build the channel, update its lock, or clean it."""
    root, only = paths.source_root(), arguments.ids or None
    inherited = arguments.invocation.environ
    if arguments.clean:
        return _clean(arguments, console)
    if arguments.older_than is not None:
        raise ConfigurationError(
            "--older-than needs --clean",
            remedy="vllm-build toolchain --clean --older-than DAYS",
        )
    path_rules.require_prefix(
        paths.cache_root(), "the cache", "set VLLM_BUILD_CACHE to another folder"
    )
    if arguments.update:
        changed = lock_update.update(root, console, only=only, inherited=inherited)
        console.table(
            "newly locked", ["build", "file"], [[file.build, file.filename] for file in changed]
        )
        if console.json_mode:
            console.json({"changed": [asdict(file) for file in changed]})
        return 0
    report = channel_build.ensure(root, console, only=only, inherited=inherited)
    rows = [[o.id, o.action, f"{o.seconds:.1f}", f"{o.size / 1e6:.1f}"] for o in report.outcomes]
    console.table(f"toolchain channel {report.path}", ["build", "action", "seconds", "MB"], rows)
    if console.json_mode:
        console.json(asdict(report) | {"path": str(report.path), "url": report.url})
    return 0
