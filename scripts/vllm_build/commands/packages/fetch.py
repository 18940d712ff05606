# SPDX-License-Identifier: Apache-2.0
"""``vllm-build fetch``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.sources import third_party
from vllm_build.toolchain.third_party_fetch import fetch
from vllm_build.util import paths
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console

HELP = "Download the locked third-party sources into the cache, for builds outside a recipe."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="name in third_party/lock.toml; default: all except those marked on_request",
    )


def run(arguments: Namespace, console: Console) -> int:
    """Fetch the named sources, or all except those marked ``on_request``."""
    known = third_party.read(paths.source_root())
    for name in arguments.names:
        if name not in known:
            raise ConfigurationError(
                f"{third_party.LOCK} has no {name!r}", expected="one of " + ", ".join(known)
            )
    wanted = arguments.names or [name for name, source in known.items() if not source.on_request]
    folders = {name: fetch(known[name], console, arguments.invocation.environ) for name in wanted}
    if console.json_mode:
        console.json(folders)
    return 0
