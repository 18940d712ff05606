# SPDX-License-Identifier: Apache-2.0
"""``vllm-build version``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.commands.target_options import add_target, options, target
from vllm_build.project import distribution_version
from vllm_build.util import paths

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console

HELP = "Print the version that a build would have, and nothing else."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_target(parser)
    parser.add_argument("--base", help="version without a suffix; default: the content of VERSION")
    parser.add_argument("--sdist", action="store_true", help="the version of a source distribution")


def run(arguments: Namespace, console: Console) -> int:
    """Print the version."""
    settings = arguments.invocation.settings
    asked, release = options(arguments)
    # A value from an option is not detected, so every rule can be tried without its hardware.
    indifferent = arguments.sdist or settings.version_override or settings.skip_version_suffix
    name = asked or "empty"
    if not indifferent and (asked is None or release is None):
        name, release = target(arguments, settings)
    text = distribution_version.full_version(
        paths.source_root(), settings, name, release, sdist=arguments.sdist, base=arguments.base
    )
    if console.json_mode:
        console.json(
            {
                "version": text,
                "device": None if indifferent else name,
                "toolkit_version": str(release) if release else None,
            }
        )
    else:
        console.output(text)
    return 0
