# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all, and their digests."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20


def sha256_of(path: Path) -> str:
    """sha256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn "no space left" into a message of its own.

    Raises:
        ResourceError: the disk or the quota below ``where`` is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                f"no space left on the disk of {where}",
                remedy="free some space, or set VLLM_BUILD_CACHE to a folder on another disk",
            ) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` under a temporary name in the same folder, then rename it to ``path``.

    Raises:
        ResourceError: the disk is full; what was there before is untouched.
    """
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
            # mkstemp makes private files; what is written here is for whoever may read the folder.
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def holds(path: Path, text: str) -> bool:
    """Whether the file exists and says exactly ``text``."""
    return path.is_file() and path.read_text(encoding="utf-8") == text


def write_if_changed(path: Path, text: str) -> bool:
    """``write_text`` unless the file says so already, which keeps its time; returns whether it was written.

    Raises:
        ResourceError: the disk is full; what was there before is untouched.
    """
    if holds(path, text):
        return False
    write_text(path, text)
    return True
