# SPDX-License-Identifier: Apache-2.0
"""Whether an installed environment still holds what was installed: all files by type and size, the files of chosen packages by sha256."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_build.files import sha256_of, write_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

#: Says that vllm-build installed the environment, and which records it wrote. Not ``*.json``: installers take those for packages.
MARKER = "conda-meta/vllm-build"
#: Of a file with a rewritten prefix the record has the sha256 and not the size. Scripts are small; larger ones are programs, and are left.
_HASHED_ANYWAY = 1 << 20


def records(prefix: Path) -> dict[str, dict[str, Any]]:
    """The records of installed packages by file name.

    Raises:
        ValueError: one cannot be read.
    """
    found = {}
    for path in sorted((prefix / "conda-meta").glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        if not isinstance(record, dict) or not isinstance(record.get("name"), str):
            raise ValueError(f"{path} is no record of a package")  # noqa: TRY004 -- the file is wrong, not the caller
        found[path.name] = record
    return found


def mark(prefix: Path, names: Iterable[str]) -> None:
    """Note that vllm-build made ``prefix``, and the file names of the records that it wrote."""
    write_text(prefix / MARKER, json.dumps({"records": sorted(names)}, indent=1) + "\n")


def mark_again(prefix: Path, old: Path) -> None:
    """Mark ``prefix``, an updated copy of ``old``: what others had added to it is not ours, nor is an environment that was not."""
    if (before := marked(old)) is not None:
        there, installed = set(records(prefix)), set(records(old))
        mark(prefix, (there & set(before)) | (there - installed))


def marked(prefix: Path) -> list[str] | None:
    """The file names of the records that vllm-build wrote; None where it did not make the environment."""
    marker = prefix / MARKER
    try:
        found = json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() and not marker.is_symlink() else None
    except (OSError, ValueError):
        return None
    names = found.get("records") if isinstance(found, dict) else None
    return [str(name) for name in names] if isinstance(names, list) else None


def _damage(prefix: Path, entry: dict[str, Any], *, hashed: bool) -> str | None:
    """What is wrong with one file; None when nothing is."""
    path = prefix / entry["_path"]
    try:
        status = path.lstat()
    except OSError as error:
        return f"{entry['_path']}: {error.strerror}"
    kind = entry.get("path_type")
    if kind == "directory":
        return None if stat.S_ISDIR(status.st_mode) else f"{entry['_path']} is not a folder"
    if kind == "softlink":
        # What it leads to is an entry of its own, or lies outside.
        return None if stat.S_ISLNK(status.st_mode) else f"{entry['_path']} is not a link"
    if not stat.S_ISREG(status.st_mode):
        return f"{entry['_path']} is not a file"
    rewritten = "sha256_in_prefix" in entry
    expected = entry.get("sha256_in_prefix") or entry.get("sha256")
    size = entry.get("size_in_bytes")
    # A prefix in a binary file is replaced in place and leaves the size as it is.
    if size is not None and not (rewritten and entry.get("file_mode") == "text") and status.st_size != size:
        return f"{entry['_path']} has {status.st_size} bytes instead of {size}"
    hashed = hashed or (rewritten and status.st_size <= _HASHED_ANYWAY)
    if hashed and expected and kind == "hardlink" and sha256_of(path) != expected:
        return f"{entry['_path']} was changed"
    return None


def damages(prefix: Path, ours: Collection[str]) -> Iterator[str]:
    """Every difference between ``prefix`` and its records, in words.

    Args:
        prefix: of an environment.
        ours: names of packages whose files are hashed. Other files are compared by size, which takes about a second for 20,000 files.
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
            # An interpreter writes byte code again when it finds it out of date, and when it is missing.
            if not entry["_path"].endswith(".pyc") and (damage := _damage(prefix, entry, hashed=record["name"] in ours)):
                yield damage


def unknown_files(prefix: Path) -> Iterator[str]:
    """Files of ``prefix`` that belong to no package, such as what pip or a person put there; byte code is left out.

    Raises:
        ValueError: a record cannot be read.
    """
    recorded = {entry["_path"] for record in records(prefix).values() for entry in record.get("paths_data", {}).get("paths", [])}
    for name, folders, files in os.walk(prefix):
        folder = Path(name)
        folders[:] = [child for child in folders if child not in ("__pycache__", "conda-meta")]
        links = [child for child in folders if (folder / child).is_symlink()]
        for child in sorted([*files, *links]):
            path = (folder / child).relative_to(prefix).as_posix()
            # rattler itself writes the tag, which keeps environments out of backups.
            if path not in recorded and not child.endswith(".pyc") and path != "CACHEDIR.TAG":
                yield path
