# SPDX-License-Identifier: Apache-2.0
"""Time, memory and size of each compiled unit.

:mod:`vllm_build.native.compile_launcher` writes the record in the build folder. Packages contain
nothing from it: times vary, and equal inputs must give equal bytes.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Relative to the build folder, in which compilers run.
RECORD = "units.jsonl"
LAUNCHER = Path(__file__).with_name("compile_launcher.py")
_NAMED = 3


@dataclass(frozen=True)
class Unit:
    """One compiled unit.

    Attributes:
        unit: the object file, relative to the build folder.
        seconds: elapsed time.
        cpu_seconds: processor time of the compiler and its children, summed over all cores.
        peak_bytes: peak memory of the largest of these processes.
        object_bytes: size of the object file; 0 if there is none.
    """

    unit: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    object_bytes: int

    @property
    def source(self) -> str:
        """The compiled file: ``csrc/norm/norm.cu``, or ``inputs/<project>/<source>``."""
        return re.sub(r"^.*?\.dir/|\.o$", "", self.unit)


def begin(folder: Path) -> None:
    """Remove the record of earlier builds in a folder."""
    (folder / RECORD).unlink(missing_ok=True)


def _unit(line: str) -> Unit | None:
    try:
        entry: dict[str, Any] = json.loads(line)
        return Unit(
            str(entry["unit"]),
            float(entry["seconds"]),
            float(entry["cpu_seconds"]),
            int(entry["peak_bytes"]),
            int(entry["object_bytes"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def read(record: Path) -> tuple[Unit, ...]:
    """The units of a record, slowest first; none without a record. Malformed lines are ignored."""
    try:
        lines = record.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    found = {unit.unit: unit for line in lines if (unit := _unit(line))}
    return tuple(sorted(found.values(), key=lambda unit: (-unit.cpu_seconds, unit.unit)))


def append(record: Path, units: Iterable[Unit], prefix: str) -> None:
    """Append units to a record that several builds share; ``prefix`` precedes each name."""
    record.parent.mkdir(parents=True, exist_ok=True)
    with record.open("a", encoding="utf-8") as stream:
        for unit in units:
            stream.write(json.dumps({**asdict(unit), "unit": f"{prefix}{unit.unit}"}) + "\n")


def summary(units: tuple[Unit, ...]) -> str:
    """A line for the log: the number of units, the slowest ones, and the largest process."""
    named = ", ".join(
        f"{unit.unit.rsplit('/', 1)[-1]} {unit.cpu_seconds:.0f} s" for unit in units[:_NAMED]
    )
    total, peak = sum(unit.cpu_seconds for unit in units), max(unit.peak_bytes for unit in units)
    return (
        f"{len(units)} units, {total:.0f} s of processor time, slowest: {named}; the largest "
        f"process had {peak / 2**30:.1f} GiB"
    )
