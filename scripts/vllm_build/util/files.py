# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all, and their digests."""

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
#: A text that a user names or keeps: a variant, a lock, a table, a key. The largest of the tree has
#: a hundredth of it.
DOCUMENT = 16 << 20
#: Temporary names of ``write_text``: mkstemp puts eight characters of its own after the prefix.
_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}")
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotRegularError(OSError):
    """What was to be read is a folder, a FIFO, a socket or a device: reading it would fail, wait for ever or never end."""


class TooLargeError(OSError):
    """A file is larger than anything of its kind."""


def may_write(folder: Path) -> bool:
    """Whether this process may make files in ``folder``.

    The process's own rights decide, not those of the user who started it: access(2) alone ignores
    the capabilities that opening a file has.
    """
    effective = {"effective_ids": True} if os.access in os.supports_effective_ids else {}
    return os.access(folder, os.W_OK | os.X_OK, **effective)


def _require_regular(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _KINDS if test(mode)), "something else")
        raise NotRegularError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


def open_regular(path: Path) -> BinaryIO:
    """Open a file that a user or a store names, for reading; links are followed to what they lead to.

    Raises:
        NotRegularError: it is no regular file. It is looked at before it is opened, as a device may
            act on that, and afterwards, as it may have been replaced.
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
        NotRegularError: it is no regular file. TooLargeError: it has more than ``limit`` bytes.
        OSError: it cannot be read.
    """
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        # In chunks: one read would reserve memory for the limit.
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
    """As :func:`read_bytes`, decoded from UTF-8 and with the line ends of this system.

    Raises:
        OSError: as there. UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path, limit).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def copy_regular(source: Path, target: Path, limit: int) -> None:
    """Copy at most ``limit`` bytes and one more, which shows the caller that there were more.

    Raises:
        NotRegularError: the source is no regular file.
        OSError: it cannot be read, or the target cannot be written.
    """
    left = limit + 1
    with open_regular(source) as stream, target.open("wb") as out:
        while left > 0 and (chunk := stream.read(min(_CHUNK, left))):
            out.write(chunk)
            left -= len(chunk)


def sha256_of(path: Path) -> str:
    """sha256 of a regular file, hexadecimal.

    Raises:
        NotRegularError: it is something else. OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open_regular(path) as stream:
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


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write ``text`` under a temporary name in the same folder, then rename it to ``path``.

    Args:
        path: of the file.
        text: its content.
        private: only this user may read it: it contains, or may contain, a password.

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
            temporary.chmod(0o600 if private else 0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def unfinished(name: str) -> str | None:
    """The name of the file that ``write_text`` was writing under the temporary ``name``; None for any other name.

    A process that is killed leaves such a file. It contains nothing that anybody relies on.
    """
    found = _TEMPORARY.fullmatch(name)
    return found[1] if found else None


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
