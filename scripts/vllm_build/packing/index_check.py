# SPDX-License-Identifier: Apache-2.0
"""Compares packages of local channels with their index.

rattler hashes packages from http(s) channels during the download: ``rattler_cache``'s package cache
passes the index's sha256 to ``rattler_package_streaming``, which reports a "hash mismatch". rattler
and conda do not hash packages of ``file://`` channels. They install a package that has changed
since it was indexed, and keep its content in the cache of extracted packages. So this module hashes
every package of a local channel before anything else reads it.

Hashes are cached by inode, size and times, so an unchanged package is hashed once. The times
include that of the last status change, because programs can set a file's modification time but not
this one.
"""

from __future__ import annotations

import json
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from vllm_build.packing import channel_index
from vllm_build.util import paths
from vllm_build.util.errors import FetchError, IntegrityError
from vllm_build.util.files import sha256_of, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable

#: A file that changed less than this time ago could change again without a change of its times. It
#: is longer than the clock tick of a file system.
_SETTLED_NS = 1_000_000_000


@dataclass(frozen=True)
class Listed:
    """A package file, with the sha256 and size that the index of its channel gives."""

    path: Path
    sha256: str | None
    size: int | None = None


def local_path(url: str) -> Path | None:
    """Return the path of a ``file://`` URL; ``None`` for other URLs."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def of_record(url: str, sha256: bytes | None, size: int | None) -> Listed | None:
    """Convert a solved record; ``None`` if the package is not from a local channel."""
    path = local_path(url)
    return None if path is None else Listed(path, sha256.hex() if sha256 else None, size)


def in_channel(folder: Path) -> list[Listed]:
    """Find the packages that the channel ``folder`` lists and that exist.

    Raises:
        IntegrityError: an index is damaged.
        OSError: an index cannot be read.
    """
    found = []
    for index in sorted(folder.glob(f"*/{channel_index.INDEX}")):
        for name, record in channel_index.read(index).items():
            path = index.parent / name
            if os.path.lexists(path):
                found.append(Listed(path, record.get("sha256"), record.get("size")))
    return found


def require_indexes(urls: Iterable[str]) -> None:
    """Check the indexes of the local channels among ``urls`` before a solver reads them.

    Raises:
        IntegrityError: an index is damaged.
        OSError: an index cannot be read.
    """
    channel_index.require(folder for url in urls if (folder := local_path(url)) is not None)


def _state(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def _note(status: os.stat_result) -> Path:
    # By inode: a package with several names is hashed once.
    return paths.cache_root() / "verified" / f"{status.st_dev}-{status.st_ino}.json"


def _known(note: Path, state: list[int]) -> str | None:
    """The sha256 that was computed for the file in the same state, if any."""
    try:
        known: Any = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return (
        str(known["sha256"])
        if isinstance(known, dict) and "sha256" in known and known.get("state") == state
        else None
    )


def _sha256(path: Path, status: os.stat_result) -> str:
    state, note = _state(status), _note(status)
    if (known := _known(note, state)) is not None:
        return known
    found = sha256_of(path)
    settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS
    if settled and _state(path.stat()) == state:
        write_text(note, json.dumps({"path": str(path), "state": state, "sha256": found}))
    return found


def require(packages: Iterable[Listed]) -> dict[Path, list[int]]:
    """Check that every package is the file that its index lists.

    Returns the states of the files, for :func:`require_unchanged`.

    Raises:
        FetchError: a package is missing.
        IntegrityError: a package differs from the index, or the index gives no sha256 for it.
    """
    states = {}
    for package in packages:
        path = package.path
        try:
            status = path.stat()
        except OSError as error:
            raise FetchError(
                f"{path} cannot be read: {error.strerror}",
                expected="all packages that the channel lists",
                remedy="build it again",
            ) from error
        if not stat.S_ISREG(status.st_mode):
            raise IntegrityError(
                f"{path} is not a regular file",
                expected="a conda package",
                remedy="remove it and build it again",
            )
        if package.sha256 is None:
            raise IntegrityError(
                f"the index of {path.parent} gives no sha256 for {path.name}",
                remedy="index the channel again",
            )
        if package.size is not None and package.size != status.st_size:
            raise _altered(path, f"has {status.st_size} bytes", f"{package.size} bytes")
        if (found := _sha256(path, status)) != package.sha256:
            raise _altered(path, f"has sha256 {found}", f"sha256 {package.sha256}")
        states[path] = _state(status)
    return states


def require_unchanged(states: dict[Path, list[int]]) -> None:
    """Check that no package has changed since :func:`require` hashed it.

    Raises:
        IntegrityError: a package has changed.
    """
    for path, state in states.items():
        if not path.is_file() or _state(path.stat()) != state:
            raise IntegrityError(
                f"{path} changed while it was installed",
                remedy="install again while no other process writes to the channel",
            )


def _altered(path: Path, found: str, expected: str) -> IntegrityError:
    return IntegrityError(
        f"{path} {found}, so it is not the package that its channel lists",
        expected=f"{expected}, from {path.parent / channel_index.INDEX}",
        remedy="find out who changed the file, then remove it and build it again",
    )


def require_channels(urls: Iterable[str]) -> None:
    """Check all packages of the local channels among ``urls``.

    Call it before a program that solves by itself, such as rattler-build.

    Raises:
        IntegrityError: as :func:`require`.
    """
    for url in urls:
        folder = local_path(url)
        if folder is not None:
            require(in_channel(folder))
