# SPDX-License-Identifier: Apache-2.0
"""``vllm-build engine``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.engine import engine_source
from vllm_build.engine.review import review
from vllm_build.toolchain import engine_lock, third_party_fetch
from vllm_build.util import paths
from vllm_build.util.errors import IntegrityError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console

NAME = "engine"
HELP = "Compare the locked engine with this tree: files, ops, requirements and licenses."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--update", metavar="VERSION", help="lock this release of vllm first, from PyPI"
    )


def run(arguments: Namespace, console: Console) -> int:
    """Show what is not in the tree's tables; the engine is fetched if the cache lacks it.

    Raises:
        IntegrityError: there is such a difference.
    """
    root, inherited = paths.source_root(), arguments.invocation.environ
    if arguments.update:
        engine_lock.update(root, arguments.update, console, inherited)
    source = engine_source.locked(root)
    third_party_fetch.fetch(source, console, inherited)
    engine = engine_source.find(root)
    found = review(root, engine)
    if console.json_mode:
        console.json({"version": engine.version, "sha256": engine.sha256, "differences": found})
    for subject, lines in found.items():
        console.info(f"{subject}: {len(lines) or 'no'} differences")
        for line in lines:
            console.info(f"    {line}")
    if any(found.values()):
        raise IntegrityError(
            f"vllm {engine.version} differs from the tables of this tree",
            expected="third_party/engine.toml, third_party/engine-ops.toml, "
            "requirements/engine.toml and third_party/licenses/vllm that fit this release",
            remedy="look at each difference above, and change the table or the code",
        )
    return 0
