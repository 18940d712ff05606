# SPDX-License-Identifier: Apache-2.0
"""Compares an environment with its records.

All files are compared by type and size, and those of chosen packages by sha256.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_build.conda.environments import edits
from vllm_build.util.files import read_bytes, sha256_of, write_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

#: Marks an environment that vllm-build installed, and lists the records it wrote. The name must not
#: end with ``.json``, because installers read such files as records of packages.
MARKER = "conda-meta/vllm-build"
#: The record of a file with a rewritten prefix has the final sha256 but not the final size. Such
#: files are hashed up to this size, which includes all scripts but not programs.
_HASHED_ANYWAY = 1 << 20
#: The maximum size of a record in bytes; it lists every file of a package.
_RECORD = 256 << 20
#: The lock that earlier versions left next to an environment.
_LOCK = re.compile(r"\..+\.vllm-build\.lock")


def records(prefix: Path) -> dict[str, dict[str, Any]]:
    """Read the records of installed packages; the keys are file names.

    Raises:
        ValueError: a record cannot be read.
    """
    found = {}
    for path in sorted((prefix / "conda-meta").glob("*.json")):
        try:
            record = json.loads(read_bytes(path, _RECORD))
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        except RecursionError as error:
            raise ValueError(f"{path} is no record of a package") from error
        if not _is_record(record):
            raise ValueError(f"{path} is no record of a package")
        found[path.name] = record
    return found


def _is_record(record: object) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("name"), str):
        return False
    data = record.get("paths_data", {})
    entries = data.get("paths", []) if isinstance(data, dict) else None
    return isinstance(entries, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("_path"), str) for entry in entries
    )


def mark(prefix: Path, names: Iterable[str], states: Mapping[str, str]) -> None:
    """Mark ``prefix`` as made by vllm-build.

    Args:
        prefix: the environment.
        names: file names of the records that vllm-build wrote.
        states: the states (``edits.states``) of the packages whose files are unchanged.
    """
    write_text(
        prefix / MARKER,
        json.dumps({"records": sorted(names), "states": dict(sorted(states.items()))}, indent=1)
        + "\n",
    )


def mark_again(prefix: Path, old: Path) -> None:
    """Mark ``prefix``, an updated copy of ``old``, if ``old`` was marked.

    The mark leaves out packages that others had added to ``old``. Packages that stayed may contain
    a user's edits. Their states are not noted, so they are hashed before they are replaced.
    """
    if (before := marked(old)) is not None:
        present, installed = records(prefix), records(old)
        new = {
            name: record
            for name, record in present.items()
            if is_replaced(record, installed.get(name))
        }
        mark(
            prefix,
            (set(present) & set(before)) | (set(present) - set(installed)),
            edits.states(prefix, new),
        )


def is_replaced(record: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    """Whether the files of a package differ from ``other``, an older record with the same name."""
    return other is None or any(
        record.get(key) != other.get(key) for key in ("sha256", "paths_data")
    )


def _marker(prefix: Path) -> dict[str, Any]:
    marker = prefix / MARKER
    try:
        found = json.loads(read_bytes(marker)) if not marker.is_symlink() else None
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def noted_states(prefix: Path) -> dict[str, str]:
    """The states of packages after their installation; earlier versions did not note them."""
    found = _marker(prefix).get("states")
    return (
        {str(name): str(state) for name, state in found.items()} if isinstance(found, dict) else {}
    )


def marked(prefix: Path) -> list[str] | None:
    """The file names of the records that vllm-build wrote; None if it did not make ``prefix``."""
    names = _marker(prefix).get("records")
    return [str(name) for name in names] if isinstance(names, list) else None


def _damage(prefix: Path, entry: dict[str, Any], *, hashed: bool) -> str | None:
    """Describe how one file differs from its entry; None if it does not."""
    path = prefix / entry["_path"]
    try:
        status = path.lstat()
    except OSError as error:
        return f"{entry['_path']}: {error.strerror}"
    kind = entry.get("path_type")
    if kind == "directory":
        return None if stat.S_ISDIR(status.st_mode) else f"{entry['_path']} is not a folder"
    if kind == "softlink":
        # The link's target has its own entry, or is outside of the environment.
        return None if stat.S_ISLNK(status.st_mode) else f"{entry['_path']} is not a link"
    if not stat.S_ISREG(status.st_mode):
        return f"{entry['_path']} is not a file"
    rewritten = "sha256_in_prefix" in entry
    expected = entry.get("sha256_in_prefix") or entry.get("sha256")
    size = entry.get("size_in_bytes")
    # Replacing the prefix in a binary file does not change the size.
    if (
        size is not None
        and not (rewritten and entry.get("file_mode") == "text")
        and status.st_size != size
    ):
        return f"{entry['_path']} has {status.st_size} bytes instead of {size}"
    hashed = hashed or (rewritten and status.st_size <= _HASHED_ANYWAY)
    if hashed and expected and kind == "hardlink" and sha256_of(path) != expected:
        return f"{entry['_path']} was changed"
    return None


def damages(prefix: Path, ours: Collection[str]) -> Iterator[str]:
    """Describe every difference between ``prefix`` and its records.

    Args:
        prefix: an environment.
        ours: names of packages whose files are hashed. Other files are compared by size, which
            takes about a second for 20,000 files.
    """
    try:
        installed = records(prefix)
    except ValueError as error:
        yield str(error)
        return
    for missing in sorted(set(marked(prefix) or ()) - set(installed)):
        yield f"conda-meta/{missing} is missing"
    names = {record["name"] for record in installed.values()}
    for missing in sorted(set(ours) - names):
        yield f"{missing} is not installed"
    for record in installed.values():
        for entry in record.get("paths_data", {}).get("paths", []):
            # Interpreters rewrite byte code that is missing or out of date.
            if not entry["_path"].endswith(".pyc") and (
                damage := _damage(prefix, entry, hashed=record["name"] in ours)
            ):
                yield damage


def unknown_files(prefix: Path) -> Iterator[str]:
    """List the files of ``prefix`` that belong to no package, except byte code.

    pip or a user may have added them.

    Raises:
        ValueError: a record cannot be read.
    """
    recorded = {
        entry["_path"]
        for record in records(prefix).values()
        for entry in record.get("paths_data", {}).get("paths", [])
    }
    for name, folders, files in os.walk(prefix):
        folder = Path(name)
        folders[:] = [child for child in folders if child not in ("__pycache__", "conda-meta")]
        links = [child for child in folders if (folder / child).is_symlink()]
        for child in sorted([*files, *links]):
            path = (folder / child).relative_to(prefix).as_posix()
            # rattler writes this tag, which excludes environments from backups.
            if (
                path not in recorded
                and not child.endswith(".pyc")
                and path != "CACHEDIR.TAG"
                and not _is_lock(folder / child)
            ):
                yield path


def _is_lock(path: Path) -> bool:
    if not _LOCK.fullmatch(path.name):
        return False
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_size == 0
