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
#: A clone has none of these at the top,
_NOT_AT_THE_TOP = (".git", ".venv", "output", "build", "dist", "results")
#: and none of these in any folder. Other tests may write some of them while the tree is copied.
_NOWHERE = (
    "__pycache__",
    "*.so",
    "*.egg-info",
    "_version.py",
    "_build_info",
    ".*_cache",
    ".coverage*",
    ".hypothesis",
)


def copy_tree(target: Path, *left_out: str, symlinks: bool = False) -> Path:
    """Copy what a clone of this tree has to the new folder ``target``, and return ``target``.

    Args:
        target: a folder that does not exist yet.
        left_out: names at the top of the tree that are not copied.
        symlinks: copy symbolic links as such, and not the files that they name.
    """

    nowhere = shutil.ignore_patterns(*_NOWHERE)
    not_at_the_top = shutil.ignore_patterns(*_NOT_AT_THE_TOP, *left_out)

    def ignore(folder: str, names: list[str]) -> set[str]:
        at_the_top = not_at_the_top(folder, names) if folder == str(ROOT) else set()
        return nowhere(folder, names) | at_the_top

    return shutil.copytree(ROOT, target, ignore=ignore, symlinks=symlinks)


def misses(log: str) -> int:
    """The number of units that the compiler cache did not have, from the log of a package build."""
    (count,) = re.findall(r"^\s*ccache cache_miss: (\d+)$", log, re.MULTILINE)
    return int(count)
