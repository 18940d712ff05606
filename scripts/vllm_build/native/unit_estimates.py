# SPDX-License-Identifier: Apache-2.0
"""Estimates a build before it starts, from the measured times of its units.

``benchmarks/unit_times.json`` has the processor time, memory and size of each unit for one
architecture. nvcc compiles a unit once for each architecture, so its time is that of one, times
their number. A unit without a measurement counts as the mean of its memory class.
"""

from __future__ import annotations

import heapq
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vllm_build.kernels.kernel_records import MEMORY_CLASSES
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.files import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from vllm_build.kernels.build_plan import Plan
    from vllm_build.native.job_count import Jobs

TABLE = "benchmarks/unit_times.json"
#: Of a unit that no measurement is known for, if its memory class has none either.
_UNKNOWN_SECONDS = 30.0


@dataclass(frozen=True)
class UnitEstimate:
    """One unit of a plan.

    Attributes:
        unit: its path in the build folder's object files, without suffix: ``csrc/norm/norm.cu``, or
            ``inputs/<project>/<source>``.
        seconds: processor time.
        peak_bytes: memory of the largest process.
        heavy: whether it is in the pool of heavy units.
        measured: whether the table has it.
    """

    unit: str
    seconds: float
    peak_bytes: int
    heavy: bool
    measured: bool


@dataclass(frozen=True)
class Estimate:
    """A whole build.

    Attributes:
        units: what it compiles.
        wall_seconds: time with the given jobs, if no compiler cache answers.
        peak_bytes: memory of the largest units that may run at once.
    """

    units: tuple[UnitEstimate, ...]
    wall_seconds: float
    peak_bytes: int

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all units."""
        return sum(unit.seconds for unit in self.units)

    @property
    def guessed(self) -> int:
        """Number of units without a measurement."""
        return sum(not unit.measured for unit in self.units)


def read(root: Path) -> Mapping[str, Mapping[str, Any]]:
    """Device → unit → its measurement; empty if the tree has no table, as in a wheel's sources.

    Raises:
        ConfigurationError: the table is malformed.
    """
    path = root / TABLE
    try:
        table: dict[str, Any] = json.loads(read_text(path))["units"]
        for units in table.values():
            for entry in units.values():
                float(entry["seconds"]), int(entry["peak_mib"]), int(entry["object_kib"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} is not a table of measured units: {type(error).__name__}: {error}",
            expected="what benchmarks/record_units.py writes",
            remedy="check out that file again",
        ) from error
    return table


def _planned(plan: Plan) -> Iterator[tuple[str, str, int]]:
    """Unit, memory class and number of architectures of each unit."""
    for extension in plan.extensions:
        for source in extension.sources:
            yield source, "ordinary", 1
        for kernel in extension.kernels:
            archs = max(1, len(kernel.archs))
            gpu = (".cu",)
            for source in kernel.sources:
                yield source, kernel.memory, archs if source.endswith(gpu) else 1
            for source in kernel.third_party_sources:
                unit = f"inputs/{kernel.third_party}/{source}"
                yield unit, kernel.memory, archs if source.endswith(gpu) else 1


def units(root: Path, plan: Plan) -> tuple[UnitEstimate, ...]:
    """The units of a plan, in the order in which Ninja starts them.

    Raises:
        ConfigurationError: the table is malformed.
    """
    known = read(root).get(plan.device, {})
    planned = list(_planned(plan))
    by_class: dict[str, list[float]] = {}
    for unit, memory, _ in planned:
        if unit in known:
            by_class.setdefault(memory, []).append(float(known[unit]["seconds"]))
    found = []
    for unit, memory, archs in planned:
        entry = known.get(unit)
        if entry:
            seconds, peak = float(entry["seconds"]), int(entry["peak_mib"]) << 20
        else:
            alike = by_class.get(memory)
            seconds = sum(alike) / len(alike) if alike else _UNKNOWN_SECONDS
            peak = MEMORY_CLASSES[memory]
        found.append(
            UnitEstimate(unit, seconds * archs, peak, memory != "ordinary", entry is not None)
        )
    return tuple(found)


def _wall_seconds(planned: tuple[UnitEstimate, ...], jobs: Jobs) -> float:
    """Run the units in their order on the build's jobs; heavy ones wait for their pool."""
    running: list[tuple[float, bool]] = []
    waiting = list(planned)
    now, heavy = 0.0, 0
    while waiting:
        fits = next(
            (i for i, u in enumerate(waiting) if not u.heavy or heavy < jobs.heavy_jobs), None
        )
        if fits is None or len(running) >= jobs.jobs:
            now, ended = heapq.heappop(running)
            heavy -= ended
            continue
        unit = waiting.pop(fits)
        heavy += unit.heavy
        heapq.heappush(running, (now + unit.seconds, unit.heavy))
    return max((end for end, _ in running), default=now)


def estimate(root: Path, plan: Plan, jobs: Jobs) -> Estimate:
    """Estimate a build.

    Args:
        root: the source tree.
        plan: what is compiled.
        jobs: how many compilers run at once.

    Raises:
        ConfigurationError: the table is malformed.
    """
    planned = units(root, plan)
    peaks = {
        heavy: sorted((u.peak_bytes for u in planned if u.heavy == heavy), reverse=True)
        for heavy in (True, False)
    }
    at_once = peaks[True][: jobs.heavy_jobs]
    more = peaks[False][: max(0, jobs.jobs - len(at_once))]
    return Estimate(planned, _wall_seconds(planned, jobs), sum(at_once) + sum(more))


def spell_time(seconds: float) -> str:
    """A time in words: ``45 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:  # noqa: PLR2004 - as read
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"  # noqa: PLR2004


def summary(found: Estimate, jobs: Jobs) -> str:
    """One line: processor time, time, memory, and what they are based on."""
    guessed = f", {found.guessed} of them without a measurement" if found.guessed else ""
    compilers = "compiler" if jobs.jobs == 1 else "compilers"
    return (
        f"estimate: {len(found.units)} units{guessed}, {spell_time(found.cpu_seconds)} of "
        f"processor time, {spell_time(found.wall_seconds)} with {jobs.jobs} {compilers} at once, "
        f"{found.peak_bytes / 2**30:.1f} GiB at the peak; results in a compiler cache take none"
    )
