# SPDX-License-Identifier: Apache-2.0
"""``vllm-build install``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.commands.package_options import add_channel
from vllm_build.conda import package_channel
from vllm_build.conda.environments import conda_environment, prefixes

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console

HELP = "Install built packages into a prefix."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "prefix",
        type=Path,
        help="the environment's folder: a new or empty one, or one that this command created and "
        "will replace",
    )
    parser.add_argument("specs", nargs="*", default=["vllm"], help="what to install; default: vllm")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--update",
        action="store_true",
        help="install into an existing environment, also one of another tool; its other packages "
        "and files stay",
    )
    how.add_argument(
        "--force",
        action="store_true",
        help="also replace a folder that vllm-build did not create or that was changed since, once "
        "the new environment is complete",
    )
    add_channel(parser)


def run(arguments: Namespace, console: Console) -> int:
    """Install built packages into a prefix."""
    output = arguments.output.absolute()
    urls = [
        output.as_uri(),
        package_channel.url(
            package_channel.choose(arguments.channel, arguments.invocation.settings)
        ),
    ]
    prefixes.require_apart(prefixes.check(arguments.prefix, [output]))
    with console.step(f"install {' '.join(arguments.specs)}"):
        records = conda_environment.create(
            arguments.prefix,
            arguments.specs,
            urls,
            force=arguments.force,
            update=arguments.update,
            keep=[output],
            compiled=True,
        )
    if console.json_mode:
        console.json(records)
    return 0
