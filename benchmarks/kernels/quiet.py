# SPDX-License-Identifier: Apache-2.0
"""Whether the machine is quiet enough for figures that are published or compared later."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.util.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernels.report import Result

STAT = Path("/proc/stat")
#: The share of all processors' time that other programs may use while ours wait.
BUSY = 0.05
#: The scatter that half of the cases may have at most; see :meth:`report.Result.scatter`.
SCATTER = 0.05
_SECONDS = 3.0
#: Places in the first line of ``/proc/stat``: idle, and waiting for a disk.
_IDLE = (3, 4)


def _ticks(stat: Path) -> tuple[int, int]:
    """The clock ticks of all processors so far: all of them, and the idle ones."""
    # Guests' time is part of the user's, so only the first eight numbers count.
    numbers = [int(word) for word in stat.read_text(encoding="utf-8").split("\n")[0].split()[1:9]]
    return sum(numbers), sum(numbers[place] for place in _IDLE)


def busy_share(seconds: float = _SECONDS, stat: Path = STAT) -> float:
    """The share of the processors' time that all programs used while this one slept."""
    before, idle_before = _ticks(stat)
    time.sleep(seconds)
    after, idle_after = _ticks(stat)
    return 1 - (idle_after - idle_before) / max(after - before, 1)


def require_quiet(share: float) -> None:
    """Refuse to measure while other programs compute.

    Args:
        share: the result of :func:`busy_share`.

    Raises:
        ResourceError: they use more than ``BUSY`` of the processors.
    """
    if share > BUSY:
        raise ResourceError(
            f"other programs use {share:.0%} of this machine's processors",
            expected=f"at most {BUSY:.0%}, for figures that others can repeat",
            remedy="end the other programs, or leave out --docs, --check and --write-baseline",
        )


def require_steady(results: Sequence[Result]) -> None:
    """Refuse results of rounds that differ too much from each other.

    Raises:
        ResourceError: in half of the cases, the rounds differ by more than ``SCATTER``.
    """
    found = [
        scatter
        for result in results
        for peer in result.times
        if (scatter := result.scatter(peer)) is not None
    ]
    if found and statistics.median(found) > SCATTER:
        raise ResourceError(
            f"the rounds differ by {statistics.median(found):.0%} in half of the cases",
            expected=f"at most {SCATTER:.0%}: something else computed during the run",
            remedy="run it again on a quiet machine; the results are in the JSON file",
        )
