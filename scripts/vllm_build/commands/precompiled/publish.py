# SPDX-License-Identifier: Apache-2.0
"""``vllm-build publish``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.stores import signer_keys, store_publish
from vllm_build.util import paths

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console

HELP = "Add built kernels to a store, from which other checkouts can reuse them."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--store",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="the store; a new or empty folder becomes one",
    )
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="sign with this Ed25519 key (PEM); a store that is new becomes a signed one, which "
        "needs the key every time",
    )
    parser.add_argument(
        "--private",
        action="store_true",
        help="also add builds with your own flags or third-party sources, which are refused "
        "otherwise",
    )
    parser.add_argument(
        "built",
        type=Path,
        nargs="*",
        metavar="BUILT",
        help="wheels, .conda files, or folders that contain vllm with its kernels; default: this "
        "tree, after pip install -e .",
    )


def run(arguments: Namespace, console: Console) -> int:
    """Publish each build."""
    key = signer_keys.load_private(arguments.key) if arguments.key else None
    done: dict[str, bool] = {}
    for built in arguments.built or [paths.source_root()]:
        with console.step(f"publish {built}"):
            added = store_publish.publish(
                built, arguments.store, Context(), key, private=arguments.private
            )
            for name, new in added.items():
                console.info(f"    {name}: {'added' if new else 'exists already'}")
            done |= added
    if console.json_mode:
        console.json({"store": str(arguments.store), "outputs": done})
    return 0
