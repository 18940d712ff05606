# SPDX-License-Identifier: Apache-2.0
"""The user's cache of reused files: by content, shared by all checkouts and by processes that run at the same time.

``blobs/`` holds whole files by sha256; they are hashed again whenever one is used. ``parts/`` holds
what a broken download left, under a name that says of which version of which file it is a part.
``refs/`` says which blob the copy of a remote file is, so that it is not fetched twice. A file gets
its name only when it is whole, so a process that dies leaves nothing that another would take.
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
    """A name for what the facts describe, hexadecimal."""
    return hashlib.sha256(json.dumps([str(fact) for fact in facts]).encode()).hexdigest()


@dataclass(frozen=True)
class Usage:
    """What one folder of the cache holds: its name, the number of files, and their bytes."""

    folder: str
    files: int
    size: int


class Cache:
    """The cache below ``root``."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or paths.cache_root() / "reuse"

    def _claim(self) -> None:
        """Make sure that the folder is ours: ``clean`` removes all files in it."""
        removal.claim(self.root, "the cache of reused files", (*_FOLDERS, "locks"), _FOLDERS)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Nothing is cleaned during the block."""
        self._claim()
        with disk_errors(self.root), locks.waiting(self.root / "locks" / "in-use", shared=True):
            for folder in _FOLDERS:
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            yield

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Hold the right to fetch what ``key`` names; whoever waited finds it in the cache.

        Keys share a small number of locks.
        """
        with locks.waiting(self.root / "locks" / key[:2]):
            yield

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A folder for files that are not whole yet; removed at the end."""
        with removal.temporary(self.root / "incoming", "") as folder:
            yield folder

    def _blob(self, sha256: str) -> Path:
        return self.root / "blobs" / sha256[:2] / sha256

    def find(self, sha256: str) -> Path | None:
        """The file with this content; None when the cache does not have it.

        A damaged one is removed.
        """
        path = self._blob(sha256)
        if not path.is_file():
            return None
        if sha256_of(path) != sha256:
            path.unlink(missing_ok=True)
            return None
        # `clean` goes by the time of last use.
        os.utime(path)
        return path

    def add_bytes(self, data: bytes) -> Path:
        """Keep what is in memory; returns its place."""
        with self.incoming() as folder:
            file = folder / "bytes"
            file.write_bytes(data)
            return self.add(file, hashlib.sha256(data).hexdigest())

    def add(self, file: Path, sha256: str) -> Path:
        """Move a whole file, whose sha256 the caller has computed, in; returns its place."""
        target = self._blob(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)
        return target

    def part(self, key: str) -> Path:
        """Where a download that may break off is kept."""
        return self.root / "parts" / key

    def remember(self, key: str, sha256: str) -> None:
        """Note which content ``key`` stands for."""
        write_text(self.root / "refs" / key, sha256 + "\n")

    def recall(self, key: str) -> Path | None:
        """The file that ``key`` stands for, when it is known and here."""
        try:
            sha256 = (self.root / "refs" / key).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return self.find(sha256) if SHA256.fullmatch(sha256) else None

    def usage(self) -> list[Usage]:
        """What the cache holds, by folder."""
        found = []
        for folder in _FOLDERS:
            sizes = [path.stat().st_size for path in _files(self.root / folder)]
            found.append(Usage(folder, len(sizes), sum(sizes)))
        return found

    def clean(self, older_than_days: float = 0.0) -> Usage:
        """Remove what has not been used for so long; returns what was removed.

        Raises:
            BusyError: another process uses the cache. ConfigurationError: the folder holds
                something else than a cache.
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
