# SPDX-License-Identifier: Apache-2.0
"""Copies of the source tree that tests edit."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from vllm_build.util import paths

if TYPE_CHECKING:
    from pathlib import Path

ROOT = paths.source_root()


def copy_tree(target: Path) -> Path:
    """Copy the tree without build outputs and environments."""
    shutil.copytree(
        ROOT,
        target,
        ignore=shutil.ignore_patterns(".git", ".venv", "output", "build", "__pycache__", "*.so"),
    )
    return target


def misses(log: str) -> int:
    """The number of units that the compiler cache did not have, from the log of a package build."""
    (count,) = re.findall(r"^\s*ccache cache_miss: (\d+)$", log, re.MULTILINE)
    return int(count)
