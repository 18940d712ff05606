# SPDX-License-Identifier: Apache-2.0
"""Says during a build how long the rest takes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vllm_build.native import unit_estimates, unit_times

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.native.job_count import Jobs
    from vllm_build.native.unit_estimates import UnitEstimate

#: Ninja's and make's line for a compiled unit.
_COMPILED = re.compile(r"Building \w+ object \S+?\.dir/(\S+)\.o\b")
#: A unit that took a smaller part of its estimate came from a compiler cache.
_CACHED = 0.2


class Progress:
    """The rest of a build, from the estimates of its units and the time of those that are done."""

    def __init__(self, units: tuple[UnitEstimate, ...], jobs: Jobs, record: Path) -> None:
        """Start.

        Args:
            units: what the build compiles.
            jobs: how many compilers run at once.
            record: where the units' times are written (:mod:`vllm_build.native.unit_times`).
        """
        self._jobs, self._record = jobs, record
        self._left: dict[str, list[UnitEstimate]] = {}
        for unit in units:
            self._left.setdefault(unit.unit, []).append(unit)
        self._known = {unit.unit: unit.seconds for unit in units}

    def _pace(self) -> float:
        """Measured time of the compiled units, as a multiple of their estimates."""
        took = estimated = 0.0
        for unit in unit_times.read(self._record):
            expected = self._known.get(unit.source, 0.0)
            if unit.cpu_seconds > _CACHED * expected:
                took += unit.cpu_seconds
                estimated += expected
        return took / estimated if estimated else 1.0

    def left_seconds(self) -> float:
        """Time until all units are compiled, if no compiler cache has them."""
        rest = [unit for group in self._left.values() for unit in group]
        every = sum(unit.seconds for unit in rest) / self._jobs.jobs
        heavy = sum(unit.seconds for unit in rest if unit.heavy) / self._jobs.heavy_jobs
        return max(every, heavy, *(unit.seconds for unit in rest)) * self._pace() if rest else 0.0

    def annotate(self, line: str) -> str:
        """A line of the build's output, with the remaining time if it reports a compiled unit."""
        found = _COMPILED.search(line)
        group = self._left.get(found[1]) if found else None
        if not group:
            return line
        group.pop()
        left = self.left_seconds()
        if not left:
            return line
        return f"{line.rstrip()}; {unit_estimates.spell_time(left)} left\n"
