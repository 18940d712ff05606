# SPDX-License-Identifier: Apache-2.0
"""Which files of packages were changed or removed in an environment since it was installed.

The records of an environment have the sha256 of every file, and hashing reads them all: 6 s for an
environment with torch for the CPU (20,000 files, 1.2 GB). So an installation notes the state of
each package's files (size, times, inode), and a package whose files are in that state is not read
again: comparing the states of that environment takes 0.3 s. The time of the last status change is
part of the state. No program can set it, so an edit that keeps the size and the modification time
is noticed. What is in another state, such as a copy of an environment, is hashed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, Any

from vllm_build.util.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def _entries(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The files of a package, without byte code: interpreters write it again."""
    for entry in record.get("paths_data", {}).get("paths", []):
        if not entry["_path"].endswith(".pyc"):
            yield entry


def _state(prefix: Path, record: Mapping[str, Any]) -> str:
    """A digest of the state of all files of a package."""
    digest = hashlib.sha256()
    for entry in _entries(record):
        try:
            status = os.lstat(f"{prefix}/{entry['_path']}")
        except OSError as error:
            digest.update(f"{entry['_path']}\0{error.errno}\n".encode(errors="surrogateescape"))
            continue
        # A folder's size and times change with its entries, which byte code is among.
        if stat.S_ISDIR(status.st_mode):
            state: tuple[int, ...] = (status.st_mode, status.st_ino)
        else:
            state = (
                status.st_mode,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
                status.st_ino,
            )
        digest.update(f"{entry['_path']}\0{state}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def states(prefix: Path, records: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """The state of each package, by the file name of its record."""
    return {name: _state(prefix, record) for name, record in records.items()}


def _is_link_to(path: Path, expected: set[str]) -> bool:
    """Whether a link is the recorded one.

    Programs record the sha256 of its text, or of the file that it leads to.
    """
    if hashlib.sha256(os.fsencode(path.readlink())).hexdigest() in expected:
        return True
    return path.is_file() and sha256_of(path) in expected


def _is_as_recorded(path: Path, status: os.stat_result, entry: Mapping[str, Any]) -> bool:
    if entry.get("path_type") == "directory":
        return stat.S_ISDIR(status.st_mode)
    expected = {entry[key] for key in ("sha256", "sha256_in_prefix") if entry.get(key)}
    if entry.get("path_type") == "softlink":
        return stat.S_ISLNK(status.st_mode) and (not expected or _is_link_to(path, expected))
    if not stat.S_ISREG(status.st_mode):
        return False
    rewritten = entry.get("sha256_in_prefix")
    if not rewritten and entry.get("size_in_bytes") not in (None, status.st_size):
        return False
    final = rewritten or entry.get("sha256")
    return not final or sha256_of(path) == final


def differences(
    prefix: Path, records: Mapping[str, dict[str, Any]], known: Mapping[str, str]
) -> Iterator[tuple[str, bool]]:
    """Every file that is not as its package brought it, and whether it is gone.

    Args:
        prefix: of an environment.
        records: of the packages to look at, by the file name of the record.
        known: states of packages whose files were as the packages brought them.

    Raises:
        OSError: a file cannot be read.
    """
    for name, record in records.items():
        if name in known and known[name] == _state(prefix, record):
            continue
        for entry in _entries(record):
            path = prefix / entry["_path"]
            try:
                status = path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                yield entry["_path"], True
                continue
            if not _is_as_recorded(path, status, entry):
                yield entry["_path"], False
