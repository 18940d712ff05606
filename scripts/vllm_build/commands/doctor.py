# SPDX-License-Identifier: Apache-2.0
"""``vllm-build doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build import doctor, paths
from vllm_build.errors import ToolchainError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.console import Console

NAME = "doctor"
HELP = "Show what was found on this machine, and what contradicts what."


def add_arguments(parser: ArgumentParser) -> None:
    """It has none of its own."""
    del parser


def run(arguments: Namespace, console: Console) -> int:
    """Show what was found; the status is a toolchain error's when something needs a remedy."""
    del arguments
    facts = doctor.examine(paths.source_root())
    if console.json_mode:
        console.json([fact.as_dict() for fact in facts])
    console.table("doctor", ["what", "found", "remedy"], [[f.what, f.found, f.remedy or ""] for f in facts])
    return ToolchainError.exit_code if any(fact.remedy for fact in facts) else 0
