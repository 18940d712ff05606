# SPDX-License-Identifier: Apache-2.0
"""The cache of downloaded files, by content: ``downloads/sha256/ab/abcd.../name``.

All checkouts of a user share it, and concurrent builds may use it.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.util import removal
from vllm_build.util.errors import IntegrityError
from vllm_build.util.files import disk_errors, sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vllm_build.toolchain.toolchain_lock import LockedFile


@dataclass(frozen=True)
class Store:
    """The download cache below ``root``."""

    root: Path

    def path(self, file: LockedFile) -> Path:
        """The path of ``file`` in the cache; the file may not exist yet."""
        return self.root / "sha256" / file.sha256[:2] / file.sha256 / file.filename

    def get(self, file: LockedFile) -> Path | None:
        """Return the path of the verified file, or ``None`` if the cache does not have it.

        A damaged copy is removed and counts as missing.
        """
        path = self.path(file)
        if not path.is_file():
            return None
        if sha256_of(path) == file.sha256:
            return path
        path.unlink(missing_ok=True)
        return None

    def put(self, file: LockedFile, arrived: Path) -> Path:
        """Move the download ``arrived`` into the cache as ``file`` and return its path there.

        It is renamed, so it must be in a folder of ``incoming``.

        Raises:
            IntegrityError: its sha256 is not the locked one; ``arrived`` has been removed.
            ResourceError: the disk is full.
        """
        actual = sha256_of(arrived)
        if actual != file.sha256:
            arrived.unlink()
            raise IntegrityError(
                f"the download of {file.label} is not the locked file: {file.filename} has sha256 "
                f"{actual}",
                expected=f"sha256 {file.sha256}",
                remedy="find out who changed the file; if the change is right: vllm-build "
                f"toolchain --update {file.build}",
            )
        path = self.path(file)
        with disk_errors(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            arrived.chmod(0o644)
            arrived.replace(path)
        return path

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """Make a temporary folder for downloads, on the file system of the cache."""
        with disk_errors(self.root), removal.temporary(self.root / "incoming", "") as folder:
            yield folder
