# SPDX-License-Identifier: Apache-2.0
"""``vllm-build install``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build import path_rules
from vllm_build.commands._common import add_channel
from vllm_build.conda import channel, environment

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.console import Console

NAME = "install"
HELP = "Install built packages into a prefix."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("prefix", type=Path)
    parser.add_argument("specs", nargs="*", default=["vllm"], help="what to install; default: vllm")
    add_channel(parser)


def run(arguments: Namespace, console: Console) -> int:
    """Install built packages into a prefix."""
    path_rules.require_prefix(arguments.prefix.absolute(), "the environment", "choose another folder for it")
    urls = [arguments.output.absolute().as_uri(), channel.url(channel.choose(arguments.channel))]
    with console.step(f"install {' '.join(arguments.specs)}"):
        records = environment.create(arguments.prefix.absolute(), arguments.specs, urls)
    if console.json_mode:
        console.json(records)
    return 0
