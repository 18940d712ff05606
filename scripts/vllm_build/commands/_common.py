# SPDX-License-Identifier: Apache-2.0
"""What several subcommands share."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build import paths
from vllm_build.conda import channel, variants
from vllm_build.conda.package import Request
from vllm_build.errors import ConfigurationError
from vllm_build.settings_kinds import WORDS, checked

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_channel(parser: ArgumentParser) -> None:
    """Options of every command that reads or writes packages."""
    default = os.environ.get("CHANNEL")
    parser.add_argument(
        "--channel",
        default=default,
        help="local (made from PyPI and Debian packages) or conda-forge; default: $CHANNEL, else local where apt exists",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("output"), help="the folder, itself a conda channel, that receives the packages"
    )


def request(arguments: Namespace, variant: str) -> Request:
    """The request that the arguments describe."""
    root = paths.source_root()
    text = getattr(arguments, "reuse", None)
    reuse = checked("--reuse", WORDS, text) if text else ()
    return Request(root, variants.load(root, variant), channel.choose(arguments.channel), arguments.output.absolute(), reuse)


def parse_days(text: str) -> float:
    """The value of ``--older-than``.

    Raises:
        ConfigurationError: it is not a number of days.
    """
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not 0 <= days < math.inf:
        raise ConfigurationError(f"--older-than {text!r} is not valid", expected="a number of days, such as 30")
    return days
