# SPDX-License-Identifier: Apache-2.0
"""Reads ``.conda`` files.

A ``.conda`` file is a zip archive. One of its members is a tar archive of the package's files,
compressed with Zstandard. CEP 26 defines the members' names.
"""

from __future__ import annotations

import importlib
import io
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vllm_build.reuse.records import bounds, member_names
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vllm_build.reuse.archives.wheel_file import Archive

_SITE = "site-packages/"


def content_member(archive: Archive) -> str:
    """The name of the member that has the package's files.

    Raises:
        RefusedError: the archive is not a ``.conda`` file.
    """
    found = [
        name for name in archive.members if name.startswith("pkg-") and name.endswith(".tar.zst")
    ]
    others = [
        name
        for name in archive.members
        if name not in found and name != "metadata.json" and not name.startswith("info-")
    ]
    if len(found) != 1 or others:
        what = f"its members are {', '.join(sorted(archive.members)[:5])}"
        raise RefusedError(
            "directory",
            archive.where,
            what,
            expected="metadata.json, one info-*.tar.zst and one pkg-*.tar.zst",
        )
    info = archive.members[found[0]]
    if info.compress_size != info.file_size:
        raise RefusedError(
            "method",
            archive.where,
            f"{found[0]} is compressed twice",
            expected="a stored member",
        )
    return found[0]


def _decompressor() -> tuple[Any, type[Exception]]:
    """A function that opens a Zstandard stream, and the exception that it raises.

    They come from the standard library (Python 3.14 and newer) or from zstandard.

    Raises:
        ConfigurationError: this Python has neither.
    """
    try:
        module = importlib.import_module("compression.zstd")
    except ImportError:
        try:
            module = importlib.import_module("zstandard")
        except ImportError:
            raise ConfigurationError(
                "a .conda file is compressed with Zstandard, which this Python cannot read",
                expected="Python 3.14, or the package zstandard",
                remedy="pip install zstandard",
            ) from None
        return lambda stream: module.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
            stream
        ), module.ZstdError
    return module.ZstdFile, module.ZstdError


class _Metered(io.RawIOBase):
    """Refuses a stream that unpacks to an implausible size."""

    def __init__(self, stream: Any, packed: int, where: str) -> None:
        super().__init__()
        self._stream, self._packed, self._where, self._got = stream, packed, where, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size)
        self._got += len(data)
        bounds.check_ratio(self._got, self._packed, self._where, "the package")
        bounds.check_size(self._got, bounds.OUTPUT, self._where, "the package")
        return data


def _check(member: tarfile.TarInfo, where: str) -> None:
    kind = None
    if member.issym() or member.islnk():
        kind = "link"
    elif not (member.isfile() or member.isdir()) or member.issparse():
        kind = "special-file"
    if kind:
        expected = "plain files"
        raise RefusedError(
            kind,
            where,
            f"{member.name!r} is of type {member.type.decode('ascii', 'replace')!r}",
            expected=expected,
        )


@contextmanager
def _errors(where: str, error: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, error, ValueError, OverflowError) as failure:
        raise RefusedError(
            "directory",
            where,
            f"the package's files cannot be read: {failure}",
            expected="a complete .tar.zst",
        ) from failure


def unpack(archive: Archive, folder: Path) -> dict[str, Path]:
    """Write the libraries and records of a package into the empty folder ``folder``.

    The files are numbered, so no name from the archive becomes a path.

    Returns:
        Path below ``site-packages`` -> written file. The content of the files is unchecked.

    Raises:
        RefusedError: a member is not allowed, or the archive is damaged.
        ConfigurationError: this Python cannot read Zstandard.
    """
    member = content_member(archive)
    opened, error = _decompressor()
    found: dict[str, Path] = {}
    seen: list[str] = []
    with archive.zip.open(member) as packed, _errors(archive.where, error):
        metered = _Metered(opened(packed), archive.members[member].compress_size, archive.where)
        with tarfile.open(fileobj=metered, mode="r|") as tar:
            for entry in tar:
                seen.append(entry.name)
                bounds.check_size(len(seen), bounds.MEMBERS, archive.where, "the list of members")
                member_names.check([entry.name], archive.where)
                _check(entry, archive.where)
                _, here, path = entry.name.rpartition(_SITE)
                if (
                    not here
                    or not entry.isfile()
                    or not (member_names.is_library(path) or member_names.output_of(path))
                ):
                    continue
                bounds.check_size(entry.size, bounds.LIBRARY, archive.where, path)
                found[path] = folder / f"{len(found)}"
                _write(tar, entry, found[path])
    member_names.check(seen, archive.where)
    return found


def _write(tar: tarfile.TarFile, entry: tarfile.TarInfo, target: Path) -> None:
    content = tar.extractfile(entry)
    with target.open("wb") as stream:
        while content is not None and (chunk := content.read(bounds.MIB)):
            stream.write(chunk)
