# SPDX-License-Identifier: Apache-2.0
"""Finds files of packages that were changed or removed since the installation.

The records of an environment have the sha256 of every file. Hashing all files of an environment
with torch for the CPU (20,000 files, 1.2 GB) takes 6 s. An installation therefore notes the state
of each package's files (size, times, inode), and files are hashed only if the state differs, as in
a copy of an environment. Comparing the states of that environment takes 0.3 s. The state includes
the time of the last status change. No program can set it, so an edit that keeps the size and the
modification time is still noticed.
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
    """The files of a package, except byte code, which interpreters rewrite."""
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
        # A folder's size and times change when byte code is added to it.
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
    """The state of each package; the keys are the file names of records."""
    return {name: _state(prefix, record) for name, record in records.items()}


def _is_link_to(path: Path, expected: set[str]) -> bool:
    """Whether a link is the recorded one.

    Records have the sha256 of the link's text or of its target.
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
    """Yield the path of every file that was changed or removed, and whether it was removed.

    Args:
        prefix: an environment.
        records: the records of the packages to compare, by file name.
        known: states of packages with unchanged files.

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
