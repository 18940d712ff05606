# SPDX-License-Identifier: Apache-2.0
"""The user's cache of reused files, addressed by content.

All checkouts and all running processes share it. ``blobs/`` has complete files, named by sha256. A
blob is hashed again each time it is used. ``parts/`` has what interrupted downloads left; the name
of a part identifies the remote file and its version. ``refs/`` maps remote files to blobs, so that
none is fetched twice. A file gets its final name only when it is complete, so other processes never
use what a killed process left.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.reuse.records.output_record import SHA256
from vllm_build.util import locks, paths, removal
from vllm_build.util.files import disk_errors, sha256_of, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FOLDERS = ("blobs", "parts", "refs", "incoming")
_DAY = 86_400


def key_of(*facts: object) -> str:
    """A hexadecimal key for the given facts."""
    return hashlib.sha256(json.dumps([str(fact) for fact in facts]).encode()).hexdigest()


@dataclass(frozen=True)
class Usage:
    """A folder of the cache: its name, the number of its files, and their size in bytes."""

    folder: str
    files: int
    size: int


class Cache:
    """The cache below ``root``."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or paths.cache_root() / "reuse"

    def _claim(self) -> None:
        """Make sure that the folder is ours, because ``clean`` removes all files in it."""
        removal.claim(self.root, "the cache of reused files", (*_FOLDERS, "locks"), _FOLDERS)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep ``clean`` from running during the block."""
        self._claim()
        with disk_errors(self.root), locks.waiting(self.root / "locks" / "in-use", shared=True):
            for folder in _FOLDERS:
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            yield

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Hold the lock for fetching the file that ``key`` identifies.

        A process that waited for the lock finds the file in the cache. Keys share a small number
        of locks.
        """
        with locks.waiting(self.root / "locks" / key[:2]):
            yield

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A folder for incomplete files, removed after the block."""
        with removal.temporary(self.root / "incoming", "") as folder:
            yield folder

    def _blob(self, sha256: str) -> Path:
        return self.root / "blobs" / sha256[:2] / sha256

    def find(self, sha256: str) -> Path | None:
        """The file with this sha256; None if the cache does not have it.

        A damaged file is removed.
        """
        path = self._blob(sha256)
        if not path.is_file():
            return None
        if sha256_of(path) != sha256:
            path.unlink(missing_ok=True)
            return None
        # `clean` decides by the time of last use.
        os.utime(path)
        return path

    def add_bytes(self, data: bytes) -> Path:
        """Add bytes; returns the path of their file in the cache."""
        with self.incoming() as folder:
            file = folder / "bytes"
            file.write_bytes(data)
            return self.add(file, hashlib.sha256(data).hexdigest())

    def add(self, file: Path, sha256: str) -> Path:
        """Move a complete file into the cache; the caller has computed its sha256.

        Returns:
            The path of the file in the cache.
        """
        target = self._blob(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)
        return target

    def part(self, key: str) -> Path:
        """The path of a download that may be interrupted."""
        return self.root / "parts" / key

    def remember(self, key: str, sha256: str) -> None:
        """Record that ``key`` identifies the file with this sha256."""
        write_text(self.root / "refs" / key, sha256 + "\n")

    def recall(self, key: str) -> Path | None:
        """The file that ``key`` identifies; None if it is unknown or not in the cache."""
        try:
            sha256 = (self.root / "refs" / key).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return self.find(sha256) if SHA256.fullmatch(sha256) else None

    def usage(self) -> list[Usage]:
        """The number and size of the files in each folder."""
        found = []
        for folder in _FOLDERS:
            sizes = [path.stat().st_size for path in _files(self.root / folder)]
            found.append(Usage(folder, len(sizes), sum(sizes)))
        return found

    def clean(self, older_than_days: float = 0.0) -> Usage:
        """Remove files that have not been used for ``older_than_days``; 0 removes all.

        Returns:
            What was removed.

        Raises:
            BusyError: another process uses the cache. ConfigurationError: the folder is not a
                cache.
        """
        self._claim()
        count = size = 0
        before = time.time() - older_than_days * _DAY
        with locks.unused(self.root / "locks" / "in-use", "the cache of reused files"):
            for folder in _FOLDERS:
                for path in _files(self.root / folder):
                    status = path.stat()
                    if older_than_days == 0 or status.st_mtime < before:
                        path.unlink()
                        count, size = count + 1, size + status.st_size
        return Usage("removed", count, size)


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
