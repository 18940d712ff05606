# SPDX-License-Identifier: Apache-2.0
"""Finds programs: next to this interpreter, then on ``PATH``."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from vllm_build.util.errors import ToolchainError


def look_for(name: str) -> str | None:
    """The path of a program: beside this interpreter first (a virtual environment's bin), then on PATH; None when it is in neither."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() and os.access(beside, os.X_OK) else shutil.which(name)


def find_program(name: str) -> str:
    """As :func:`look_for`.

    Raises:
        ToolchainError: it is in neither place.
    """
    found = look_for(name)
    if not found:
        raise ToolchainError(
            f"{name} was not found",
            expected=f"{name} on PATH or in this environment",
            remedy=f"pip install {name}",
        )
    return found
