# SPDX-License-Identifier: Apache-2.0
"""A channel's index, put together from one record per build, so that no package is read again and no reader sees half an index."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rattler.index import index_fs

from vllm_build.conda import indexes
from vllm_build.errors import BuildError
from vllm_build.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SUBDIRS = indexes.SUBDIRS


@dataclass(frozen=True)
class Record:
    """What one build put into the channel.

    Attributes:
        id: the build.
        digest: the digest it was built for.
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
        """Whether every package file is there with the size it was recorded with."""
        return bool(self.packages) and all(
            (channel / name).is_file() and (channel / name).stat().st_size == entry.get("size") for name, entry in self.packages.items()
        )


def _records_folder(pool: Path) -> Path:
    return pool / ".builds"


def _record_file(pool: Path, name: str, digest: str) -> Path:
    return _records_folder(pool) / f"{name}@{digest}.json"


def write_record(pool: Path, record: Record) -> None:
    """Remember what a build made."""
    write_text(_record_file(pool, record.id, record.digest), json.dumps(asdict(record), indent=1, sort_keys=True) + "\n")


def remove_record(pool: Path, record: Record) -> None:
    """Forget a build."""
    _record_file(pool, record.id, record.digest).unlink(missing_ok=True)


def _read(path: Path) -> Record | None:
    try:
        record = Record(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return record if f"{record.id}@{record.digest}" == path.stem and isinstance(record.packages, dict) else None


def read_record(pool: Path, name: str, digest: str) -> Record | None:
    """The record of one build for one digest.

    ``None`` when there is none, it cannot be read, or a file of it is missing or cut short: then the build runs again.
    """
    record = _read(_record_file(pool, name, digest))
    return record if record is not None and record.complete_in(pool) else None


def read_records(pool: Path) -> dict[tuple[str, str], Record]:
    """All records that can be read, by build and digest."""
    found = (_read(path) for path in sorted(_records_folder(pool).glob("*.json")))
    return {(record.id, record.digest): record for record in found if record is not None}


def indexed(channel: Path) -> set[str]:
    """``<subdir>/<file name>`` of every package that the index of ``channel`` names."""
    return {name for name in indexes.names(channel) if name.endswith(".conda")}


def write_index(channel: Path, records: Iterable[Record]) -> None:
    """Write ``repodata.json`` of every subdir from ``records``; one that would not change stays untouched."""
    entries: dict[str, dict[str, Any]] = {subdir: {} for subdir in SUBDIRS}
    for record in records:
        for name, entry in record.packages.items():
            subdir, _, file = name.partition("/")
            entries[subdir][file] = entry
    for subdir, packages in entries.items():
        document = {
            "info": {"subdir": subdir},
            "packages": {},
            "packages.conda": dict(sorted(packages.items())),
            "removed": [],
            "repodata_version": 1,
        }
        text = json.dumps(document, indent=1, sort_keys=True) + "\n"
        path = channel / subdir / "repodata.json"
        if not path.is_file() or path.read_bytes() != text.encode():
            write_text(path, text)


def index_entries(output: Path, packages: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Repodata entries of fresh packages in the channel folder ``output``, by ``<subdir>/<file name>``, as the standard indexer makes them.

    Raises:
        BuildError: a package does not appear in the index: it is damaged.
    """
    asyncio.run(index_fs(output, write_zst=False, write_shards=False, force=True))
    result: dict[str, dict[str, Any]] = {}
    for package in packages:
        subdir = package.parent.name
        index = json.loads((output / subdir / "repodata.json").read_text(encoding="utf-8"))
        entry = {**index.get("packages", {}), **index.get("packages.conda", {})}.get(package.name)
        if entry is None:
            raise BuildError(f"{package.name} was built but cannot be indexed", remedy="run the same command again")
        result[f"{subdir}/{package.name}"] = entry
    return result
