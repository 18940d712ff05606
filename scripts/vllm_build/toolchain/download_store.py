# SPDX-License-Identifier: Apache-2.0
"""Downloads by content: ``downloads/sha256/ab/abcd.../name``, shared by every checkout and safe for builds at the same time."""

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
        """Where ``file`` lies once it is here."""
        return self.root / "sha256" / file.sha256[:2] / file.sha256 / file.filename

    def get(self, file: LockedFile) -> Path | None:
        """The verified file, or ``None`` when it is not here; a damaged copy is removed and counts as not here."""
        path = self.path(file)
        if not path.is_file():
            return None
        if sha256_of(path) == file.sha256:
            return path
        path.unlink(missing_ok=True)
        return None

    def put(self, file: LockedFile, arrived: Path) -> Path:
        """Take the downloaded ``arrived`` in as ``file`` by rename; it must lie in a folder of ``incoming``.

        Raises:
            IntegrityError: its sha256 is not the locked one; ``arrived`` is removed.
            ResourceError: the disk is full.
        """
        actual = sha256_of(arrived)
        if actual != file.sha256:
            arrived.unlink()
            raise IntegrityError(
                f"{file.label} arrived as other bytes than locked: {file.filename} has sha256 "
                f"{actual}",
                expected=f"sha256 {file.sha256}",
                remedy=(
                    "find out who changed the file; if the change is right: vllm-build "
                    "toolchain --update "
                )
                + file.build,
            )
        path = self.path(file)
        with disk_errors(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            arrived.chmod(0o644)
            arrived.replace(path)
        return path

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A folder of its own on the disk of the cache, for downloads in progress; removed afterwards."""
        with disk_errors(self.root), removal.temporary(self.root / "incoming", "") as folder:
            yield folder
