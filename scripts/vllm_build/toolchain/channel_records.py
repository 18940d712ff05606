# SPDX-License-Identifier: Apache-2.0
"""Records of what each build put into the toolchain channel, one file per build.

The channel's index is written from these records, without reading the packages again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vllm_build.util.files import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Record:
    """The packages that one build put into the channel.

    Attributes:
        id: the build.
        digest: the digest of its inputs.
        seconds: wall time of the build.
        packages: repodata entries by ``<subdir>/<file name>``.
    """

    id: str
    digest: str
    seconds: float
    packages: Mapping[str, Mapping[str, Any]]

    @property
    def size(self) -> int:
        """Bytes of all its packages."""
        return sum(int(entry.get("size", 0)) for entry in self.packages.values())

    def complete_in(self, channel: Path) -> bool:
        """Whether every package file exists and has the recorded size."""
        return bool(self.packages) and all(
            (channel / name).is_file() and (channel / name).stat().st_size == entry.get("size")
            for name, entry in self.packages.items()
        )


def _records_folder(pool: Path) -> Path:
    return pool / ".builds"


def _record_file(pool: Path, name: str, digest: str) -> Path:
    return _records_folder(pool) / f"{name}@{digest}.json"


def write_record(pool: Path, record: Record) -> None:
    """Write the record of a build."""
    write_text(
        _record_file(pool, record.id, record.digest),
        json.dumps(asdict(record), indent=1, sort_keys=True) + "\n",
    )


def remove_record(pool: Path, record: Record) -> None:
    """Remove the record of a build."""
    _record_file(pool, record.id, record.digest).unlink(missing_ok=True)


def _read(path: Path) -> Record | None:
    try:
        record = Record(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return (
        record
        if f"{record.id}@{record.digest}" == path.stem and isinstance(record.packages, dict)
        else None
    )


def read_record(pool: Path, name: str, digest: str) -> Record | None:
    """Return the record of one build for one digest.

    ``None`` means that the build has to run: there is no readable record, or one of its files is
    missing or truncated.
    """
    record = _read(_record_file(pool, name, digest))
    return record if record is not None and record.complete_in(pool) else None


def read_records(pool: Path) -> dict[tuple[str, str], Record]:
    """Return all readable records, by build and digest."""
    found = (_read(path) for path in sorted(_records_folder(pool).glob("*.json")))
    return {(record.id, record.digest): record for record in found if record is not None}
