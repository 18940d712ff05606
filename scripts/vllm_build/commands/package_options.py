# SPDX-License-Identifier: Apache-2.0
"""Options of the subcommands that read or write packages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.conda import package_channel, variants
from vllm_build.conda.package_request import Request
from vllm_build.settings.value_kinds import WORDS, checked
from vllm_build.util import paths
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console


def add_channel(parser: ArgumentParser) -> None:
    """Declare ``--channel`` and ``--output``."""
    parser.add_argument(
        "--channel",
        help="local (made from PyPI and Debian packages) or conda-forge; default: $CHANNEL, else "
        "local if apt exists",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("output"),
        help="the folder for the packages, which is also a conda channel",
    )


def request(arguments: Namespace, name: str, console: Console) -> Request:
    """The request that the arguments describe; warns about keys of the variant without effect.

    Raises:
        ConfigurationError: there is no such variant or channel, or the variant's file is invalid.
    """
    root = paths.source_root()
    variant = variants.load(root, name)
    for note in variant.notes:
        console.warn(note)
    settings = arguments.invocation.settings
    option = getattr(arguments, "reuse", None)
    reuse = (
        settings.reuse
        if option is None
        else checked("--reuse", WORDS, option)
        if option.strip()
        else ()
    )
    return Request(
        root,
        variant,
        package_channel.choose(arguments.channel, settings),
        arguments.output.absolute(),
        settings,
        reuse,
    )


def parse_days(text: str) -> float:
    """The value of ``--older-than``.

    Raises:
        ConfigurationError: it is not a number of days.
    """
    # float() alone would accept "1_000", "inf" and digits of other scripts.
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise ConfigurationError(
            f"--older-than={text!r} is not valid",
            expected="a number of days, such as 30",
            remedy="correct --older-than, or leave it out",
        )
    return float(text)
