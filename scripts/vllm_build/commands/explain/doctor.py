# SPDX-License-Identifier: Apache-2.0
"""``vllm-build doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.doctor import examination
from vllm_build.util import paths

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console

HELP = "Show what this machine has for a build, what is missing, and which settings conflict."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare nothing: the command has no arguments."""
    del parser


def run(arguments: Namespace, console: Console) -> int:
    """Show the facts; the status is 2 for contradictions, and 4 if something is only missing."""
    facts = examination.examine(paths.source_root(), arguments.invocation.environ)
    if console.json_mode:
        console.json([fact.as_dict() for fact in facts])
    console.table(
        "doctor",
        ["what", "found", "remedy"],
        [[f.what, f.found, f"{f.problem}: {f.remedy}" if f.problem else ""] for f in facts],
    )
    return examination.exit_code(facts)
