# SPDX-License-Identifier: Apache-2.0
"""What each unit of a build took, from the record that :mod:`vllm_build.native.compile_launcher` keeps in the build folder.

Nothing of it goes into a package: times differ from build to build, and the same inputs have to
give the same bytes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Below the build folder, which is where compilers run.
RECORD = "units.jsonl"
LAUNCHER = Path(__file__).with_name("compile_launcher.py")
_NAMED = 3


@dataclass(frozen=True)
class Unit:
    """One compiled unit.

    Attributes:
        unit: the object file, below the build folder.
        seconds: by the clock.
        cpu_seconds: of the compiler and all it started, on all cores together.
        peak_bytes: of the largest process among these.
    """

    unit: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int


def begin(folder: Path) -> None:
    """Forget what earlier builds of a folder took."""
    (folder / RECORD).unlink(missing_ok=True)


def _unit(line: str) -> Unit | None:
    try:
        entry: dict[str, Any] = json.loads(line)
        return Unit(
            str(entry["unit"]),
            float(entry["seconds"]),
            float(entry["cpu_seconds"]),
            int(entry["peak_bytes"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def read(record: Path) -> tuple[Unit, ...]:
    """The units of a record, slowest first; none where there is no record, and lines that are no entries are passed over."""
    try:
        lines = record.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    found = {unit.unit: unit for line in lines if (unit := _unit(line))}
    return tuple(sorted(found.values(), key=lambda unit: (-unit.cpu_seconds, unit.unit)))


def append(record: Path, units: Iterable[Unit], prefix: str) -> None:
    """Add units to a record that several builds share, their names below ``prefix``."""
    record.parent.mkdir(parents=True, exist_ok=True)
    with record.open("a", encoding="utf-8") as stream:
        for unit in units:
            stream.write(json.dumps({**asdict(unit), "unit": f"{prefix}{unit.unit}"}) + "\n")


def summary(units: tuple[Unit, ...]) -> str:
    """A line for the log: how many units, the slowest of them, and the largest process."""
    named = ", ".join(
        f"{unit.unit.rsplit('/', 1)[-1]} {unit.cpu_seconds:.0f} s" for unit in units[:_NAMED]
    )
    total, peak = sum(unit.cpu_seconds for unit in units), max(unit.peak_bytes for unit in units)
    return (
        f"{len(units)} units, {total:.0f} s of processor time, slowest: {named}; the largest "
        f"process had {peak / 2**30:.1f} GiB"
    )
