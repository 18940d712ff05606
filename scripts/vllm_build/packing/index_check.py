# SPDX-License-Identifier: Apache-2.0
"""Compares packages of local channels with their index.

rattler hashes a package while it downloads it (``rattler_cache``'s package cache passes the index's
sha256 to ``rattler_package_streaming``, which reports a "hash mismatch"), so packages from http(s)
channels are verified there. It does not hash packages of ``file://`` channels, and neither does
conda: a changed package under an unchanged index is installed, and its content stays in the cache
of extracted packages. Hence every package of a local channel is hashed here before anything reads
it.

A result is kept by inode, size and times, so that an unchanged package is hashed once. The time of
the last status change is among them because a program can set a file's modification time and cannot
set that one.
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

#: Longer than a file system's clock tick: a file that changed this recently can change again and
#: keep its times.
_SETTLED_NS = 1_000_000_000


@dataclass(frozen=True)
class Listed:
    """A package file and what the index of its channel says about it."""

    path: Path
    sha256: str | None
    size: int | None = None


def local_path(url: str) -> Path | None:
    """The file or folder that a ``file://`` address names; None for another address."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def of_record(url: str, sha256: bytes | None, size: int | None) -> Listed | None:
    """A solved record as :class:`Listed`; None where the package comes from another place than this machine's disks."""
    path = local_path(url)
    return None if path is None else Listed(path, sha256.hex() if sha256 else None, size)


def in_channel(folder: Path) -> list[Listed]:
    """Every package that the channel ``folder`` lists and has.

    Raises:
        IntegrityError: an index is damaged. OSError: the system does not let one be read.
    """
    found = []
    for index in sorted(folder.glob(f"*/{channel_index.INDEX}")):
        for name, record in channel_index.read(index).items():
            path = index.parent / name
            if os.path.lexists(path):
                found.append(Listed(path, record.get("sha256"), record.get("size")))
    return found


def require_indexes(urls: Iterable[str]) -> None:
    """Check the indexes of the local channels among ``urls``; for a solver that reads whatever lies there.

    Raises:
        IntegrityError: one is damaged. OSError: the system does not let one be read.
    """
    channel_index.require(folder for url in urls if (folder := local_path(url)) is not None)


def _state(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def _note(status: os.stat_result) -> Path:
    # By inode: a package may have several names, and is hashed once.
    return paths.cache_root() / "verified" / f"{status.st_dev}-{status.st_ino}.json"


def _known(note: Path, state: list[int]) -> str | None:
    """The sha256 that was computed for the file when it was in this state."""
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
    """Check that every package is the file that its index lists; returns their states for :func:`require_unchanged`.

    Raises:
        FetchError: a package is missing. IntegrityError: it is another file, or its index gives no
            sha256.
    """
    states = {}
    for package in packages:
        path = package.path
        try:
            status = path.stat()
        except OSError as error:
            raise FetchError(
                f"{path} cannot be read: {error.strerror}",
                expected="every package that the channel lists",
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
    """Check that no package was replaced since :func:`require` looked at it.

    Raises:
        IntegrityError: one was.
    """
    for path, state in states.items():
        if not path.is_file() or _state(path.stat()) != state:
            raise IntegrityError(
                f"{path} changed while it was installed",
                remedy="install again when nothing writes to the channel",
            )


def _altered(path: Path, found: str, expected: str) -> IntegrityError:
    return IntegrityError(
        f"{path} {found}, and is not the package that its channel lists",
        expected=f"{expected}, as {path.parent / channel_index.INDEX} says",
        remedy="find out who changed the file, then remove it and build it again",
    )


def require_channels(urls: Iterable[str]) -> None:
    """Check every package of the local channels among ``urls``; for a program that solves by itself, such as rattler-build.

    Raises:
        IntegrityError: as :func:`require`.
    """
    for url in urls:
        folder = local_path(url)
        if folder is not None:
            require(in_channel(folder))
