# SPDX-License-Identifier: Apache-2.0
"""What a build took: the seconds of each unit, from Ninja's own log, and the memory of the largest compiler.

Neither goes into a package: times differ from build to build, and the same inputs have to give the same bytes.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LOG = ".ninja_log"
_FIELDS = 5
_NAMED = 3


@dataclass(frozen=True)
class Unit:
    """One step of a build: the file that it made, below the build folder, and how long that took."""

    output: str
    seconds: float


def _lines(folder: Path) -> list[str]:
    try:
        return (folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # another generator, or nothing built yet
        return []


def steps(folder: Path) -> int:
    """How many steps the log of a build folder has: where those of the next build begin."""
    return len(_lines(folder))


def units(folder: Path, since: int = 0) -> tuple[Unit, ...]:
    """The steps after the first ``since`` ones, slowest first; lines that are no steps are passed over."""
    lines = _lines(folder)
    # Ninja writes the log anew, with fewer lines, when it has grown long.
    found: dict[str, Unit] = {}
    for line in lines[since if since <= len(lines) else 0 :]:
        fields = line.split("\t")
        if len(fields) == _FIELDS and fields[0].isdecimal() and fields[1].isdecimal():
            found[fields[3]] = Unit(fields[3], (int(fields[1]) - int(fields[0])) / 1000)
    return tuple(sorted(found.values(), key=lambda unit: (-unit.seconds, unit.output)))


def largest_process() -> int:
    """The most memory, in bytes, that any process had which this one or its children have started and waited for."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def summary(found: tuple[Unit, ...], peak: int) -> str:
    """A line for the log: how many steps, the slowest of them, and the largest process."""
    named = ", ".join(f"{unit.output.rsplit('/', 1)[-1]} {unit.seconds:.0f} s" for unit in found[:_NAMED])
    total = sum(unit.seconds for unit in found)
    return f"{len(found)} steps, {total:.0f} s in all, slowest: {named}; the largest process had {peak / 2**30:.1f} GiB"
