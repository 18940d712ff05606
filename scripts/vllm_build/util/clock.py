# SPDX-License-Identifier: Apache-2.0
"""Files whose times lie in the future: a clock that was set back, or another machine's on a shared disk.

Ninja and make compare times. What CMake reads and is newer than what CMake writes makes Ninja
configure again a hundred times and give up ("manifest 'build.ninja' still dirty after 100 tries");
a source is compiled in every build.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Seconds that the clocks of machines may differ by, as over NFS: it passes while CMake configures.
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
        root: of the source tree.
        folder: the build folder; it may be new.

    Raises:
        ConfigurationError: there are such files; it names some, and the command that gives them the
            time of now.
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
            expected="times in the past: what is out of date follows from them",
            remedy=f"set the clock, or give them the time of now: find {root} {folder} -newermt "
            "now -exec touch -h {} +",
        )
