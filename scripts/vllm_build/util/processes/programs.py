# SPDX-License-Identifier: Apache-2.0
"""Finds programs: next to this interpreter, then on ``PATH``."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from vllm_build.util.errors import ToolchainError


def look_for(name: str) -> str | None:
    """The path of a program; None if it is not found.

    The folder of this interpreter (a virtual environment's ``bin``) takes precedence over PATH.
    """
    own = Path(sys.executable).parent / name
    return str(own) if own.is_file() and os.access(own, os.X_OK) else shutil.which(name)


def find_program(name: str) -> str:
    """The path of a program, as :func:`look_for` finds it.

    Raises:
        ToolchainError: it is not found.
    """
    found = look_for(name)
    if not found:
        raise ToolchainError(
            f"{name} was not found",
            expected=f"{name} on PATH or in this environment",
            remedy=f"pip install {name}",
        )
    return found
