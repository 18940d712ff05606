# SPDX-License-Identifier: Apache-2.0
"""``vllm-build doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.doctor import examination
from vllm_build.util import paths

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console

NAME = "doctor"
HELP = "Show what was found on this machine, what is missing, and what contradicts what."


def add_arguments(parser: ArgumentParser) -> None:
    """It has none of its own."""
    del parser


def run(arguments: Namespace, console: Console) -> int:
    """Show what was found; status 2 when things contradict one another, 4 when something is missing."""
    facts = examination.examine(paths.source_root(), arguments.invocation.environ)
    if console.json_mode:
        console.json([fact.as_dict() for fact in facts])
    console.table(
        "doctor",
        ["what", "found", "remedy"],
        [[f.what, f.found, f"{f.problem}: {f.remedy}" if f.problem else ""] for f in facts],
    )
    return examination.exit_code(facts)
