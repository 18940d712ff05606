# SPDX-License-Identifier: Apache-2.0
"""``vllm-build toolchain``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from vllm_build import path_rules, paths
from vllm_build.toolchain import channel, update

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.console import Console

NAME = "toolchain"
HELP = "Build the local toolchain channel; only what changed."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("ids", nargs="*", help="builds to make, with what they need; default: all")
    parser.add_argument("--update", action="store_true", help="lock the versions that the mirrors have now, instead of building")


def run(arguments: Namespace, console: Console) -> int:
    """Build the channel, or lock its sources anew."""
    root, only = paths.source_root(), arguments.ids or None
    path_rules.require_prefix(paths.cache_root(), "the cache", "set VLLM_BUILD_CACHE to another folder")
    if arguments.update:
        changed = update.update(root, console, only=only)
        console.table("newly locked", ["build", "file"], [[file.build, file.filename] for file in changed])
        if console.json_mode:
            console.json({"changed": [asdict(file) for file in changed]})
        return 0
    report = channel.ensure(root, console, only=only)
    rows = [[o.id, o.action, f"{o.seconds:.1f}", f"{o.size / 1e6:.1f}"] for o in report.outcomes]
    console.table(f"toolchain channel {report.path}", ["build", "action", "seconds", "MB"], rows)
    if console.json_mode:
        console.json(asdict(report) | {"path": str(report.path), "url": report.url})
    return 0
