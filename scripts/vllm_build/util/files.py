# SPDX-License-Identifier: Apache-2.0
"""Reads files safely, writes them atomically and computes their digests."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from vllm_build.util.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20
#: Size limit of a text file such as a variant, a lock, a table or a key, in bytes. It is a hundred
#: times the largest one in the tree.
DOCUMENT = 16 << 20
#: Temporary names of ``write_text``: mkstemp adds eight characters to the prefix.
_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}")
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotRegularError(OSError):
    """The path is not a regular file.

    Reading a folder, a FIFO, a socket or a device would fail, block or never end.
    """


class TooLargeError(OSError):
    """A file exceeds the size limit for its kind."""


def may_write(folder: Path) -> bool:
    """Whether this process may create files in ``folder``.

    The effective user and capabilities decide. access(2) by default checks those of the real user.
    """
    effective = {"effective_ids": True} if os.access in os.supports_effective_ids else {}
    return os.access(folder, os.W_OK | os.X_OK, **effective)


def _require_regular(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _KINDS if test(mode)), "of another kind")
        raise NotRegularError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


def open_regular(path: Path) -> BinaryIO:
    """Open a file that a user or a store names, for reading; links are followed.

    The type is checked twice: before opening, because opening may have an effect on a device, and
    afterwards, because the file may have been replaced.

    Raises:
        NotRegularError: it is not a regular file.
        OSError: it cannot be opened.
    """
    _require_regular(path.stat().st_mode, path)
    # Without O_NONBLOCK, opening a FIFO waits for a writer. It has no effect on regular files.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(handle).st_mode, path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: Path, limit: int = DOCUMENT) -> bytes:
    """The content of a file that a user or a store names.

    Raises:
        NotRegularError: it is not a regular file.
        TooLargeError: it has more than ``limit`` bytes.
        OSError: it cannot be read.
    """
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        # Read in chunks: a single read would allocate memory for the limit.
        data = bytearray()
        while (
            size <= limit
            and len(data) <= limit
            and (chunk := stream.read(min(_CHUNK, limit + 1 - len(data))))
        ):
            data += chunk
    if size > limit or len(data) > limit:
        raise TooLargeError(
            errno.EFBIG,
            f"it has {max(size, len(data))} bytes, and files of its kind have at most {limit}",
            str(path),
        )
    return bytes(data)


def read_text(path: Path, limit: int = DOCUMENT) -> str:
    r"""As :func:`read_bytes`, decoded from UTF-8, with every line end as ``\n``.

    Raises:
        OSError: as for :func:`read_bytes`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path, limit).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def copy_regular(source: Path, target: Path, limit: int) -> None:
    """Copy at most ``limit + 1`` bytes; the additional byte tells the caller that there are more.

    Raises:
        NotRegularError: the source is not a regular file.
        OSError: it cannot be read, or the target cannot be written.
    """
    left = limit + 1
    with open_regular(source) as stream, target.open("wb") as out:
        while left > 0 and (chunk := stream.read(min(_CHUNK, left))):
            out.write(chunk)
            left -= len(chunk)


def sha256_of(path: Path) -> str:
    """The sha256 of a regular file, hexadecimal.

    Raises:
        NotRegularError: it is not a regular file.
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Report a full disk as an error with a remedy.

    Raises:
        ResourceError: the disk of ``where`` is full, or the user's quota on it.
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


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write ``text`` under a temporary name in the same folder, then rename it to ``path``.

    Args:
        path: the file.
        text: its content.
        private: only this user may read the file, because it may contain a password.

    Raises:
        ResourceError: the disk is full; an existing file is unchanged.
    """
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
            # mkstemp makes the file private. Everyone who may read the folder may read the file.
            temporary.chmod(0o600 if private else 0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def unfinished(name: str) -> str | None:
    """The name of the file that ``write_text`` writes under the temporary name ``name``.

    A killed process leaves such a temporary file, which nothing uses. The result is None for a name
    that is not a temporary one.
    """
    found = _TEMPORARY.fullmatch(name)
    return found[1] if found else None


def holds(path: Path, text: str) -> bool:
    """Whether the file exists and its content is ``text``."""
    return path.is_file() and path.read_text(encoding="utf-8") == text


def write_if_changed(path: Path, text: str) -> bool:
    """Write ``text`` unless it is the file's content already; returns whether it was written.

    A file that is not written keeps its modification time.

    Raises:
        ResourceError: the disk is full; an existing file is unchanged.
    """
    if holds(path, text):
        return False
    write_text(path, text)
    return True
