# SPDX-License-Identifier: Apache-2.0
"""Finds files with modification times in the future.

The clock was set back, or another machine wrote the files to a shared disk. Ninja and make compare
times. If an input of CMake is newer than CMake's output, Ninja configures a hundred times and gives
up ("manifest 'build.ninja' still dirty after 100 tries"). A source from the future is compiled in
every build.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Seconds by which the clocks of two machines may differ, for example over NFS. CMake takes longer
#: than this to configure.
TOLERANCE = 5.0
_SHOWN = 3


def _inputs(root: Path, folder: Path) -> Iterator[Path]:
    yield root / "CMakeLists.txt"
    for name in ("cmake", "csrc"):
        yield from sorted(path for path in (root / name).rglob("*") if path.is_file())
    for name in ("CMakeCache.txt", "plan.json", "build.ninja", ".ninja_log", "Makefile"):
        yield folder / name


def require_past(root: Path, folder: Path) -> None:
    """Refuse sources and files of a build folder that are newer than now.

    Args:
        root: the root of the source tree.
        folder: the build folder; it may be new.

    Raises:
        ConfigurationError: there are such files; the message names some of them and the command
            that sets their times to now.
    """
    now = time.time()
    future = []
    for path in _inputs(root, folder):
        try:
            ahead = path.stat().st_mtime - now
        except OSError:
            continue
        if ahead > TOLERANCE:
            future.append((path, ahead))
    if future:
        shown = ", ".join(f"{path} by {ahead:.0f} s" for path, ahead in future[:_SHOWN])
        more = f", and {len(future) - _SHOWN} more" if len(future) > _SHOWN else ""
        raise ConfigurationError(
            f"files are newer than this machine's clock: {shown}{more}",
            expected="times in the past: the build compares times to find outdated files",
            remedy=f"set the clock, or set their times to now: find {root} {folder} -newermt "
            "now -exec touch -h {} +",
        )
