# SPDX-License-Identifier: Apache-2.0
"""Reads wheels, which are zip archives, and refuses members that no wheel of kernels has.

zipfile parses the archive; this module checks the result.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from vllm_build.reuse.archives.bounded_stream import Bounded
from vllm_build.reuse.records import bounds, member_names
from vllm_build.reuse.records.refusal import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from vllm_build.reuse.net.request_windows import Window
    from vllm_build.reuse.records.output_record import Library

_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_TOPS = ("vllm",)
#: Bytes of a local header without its name and extra field.
_LOCAL_HEADER = 30
#: Exceptions that zipfile and zlib raise for damaged archives, over all supported Python releases.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    struct.error,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)


def _type_fault(info: zipfile.ZipInfo) -> tuple[str, str] | None:
    mode = info.external_attr >> 16
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        return "link", "a link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "special-file", "a device, pipe or socket"
    if info.flag_bits & _ENCRYPTED:
        return "encrypted", "encrypted"
    if info.compress_type not in _METHODS:
        return "method", f"compressed by method {info.compress_type}"
    return None


class Archive:
    """A zip archive whose directory has passed the checks of every member.

    Args:
        stream: the archive, a seekable binary stream.
        where: the archive's location, for messages.

    Raises:
        RefusedError: the directory is damaged, or lists a member that is not allowed.
    """

    def __init__(self, stream: Any, where: str) -> None:
        self.where = where
        try:
            self.zip = zipfile.ZipFile(cast("BinaryIO", Bounded(stream, where)))
        except _DAMAGE as error:
            raise _no_archive(where, error) from error
        except OSError as error:
            # A seek to a negative position. Errors of the disk have a file name.
            if error.filename is not None:
                raise
            raise _no_archive(where, error) from error
        self.members = {info.filename: info for info in self.zip.infolist()}
        self._check()

    def _check(self) -> None:
        infos = self.zip.infolist()
        bounds.check_size(len(infos), bounds.MEMBERS, self.where, "the list of members")
        # orig_filename, because zipfile cuts names off at a NUL.
        member_names.check((info.orig_filename for info in infos), self.where)
        end = 0
        for info in sorted(infos, key=lambda i: i.header_offset):
            if fault := _type_fault(info):
                raise RefusedError(
                    fault[0],
                    self.where,
                    f"{info.filename!r} is {fault[1]}",
                    expected="plain files, stored or deflated",
                )
            if info.header_offset < end:
                raise RefusedError(
                    "overlap",
                    self.where,
                    f"{info.filename!r} overlaps another member",
                    expected="members that do not overlap",
                )
            end = info.header_offset + _LOCAL_HEADER + len(info.orig_filename) + info.compress_size
        if end > self.zip.start_dir:
            raise RefusedError(
                "directory",
                self.where,
                "the last member overlaps the directory",
                expected="all members before the directory",
            )

    def window(self, member: str) -> Window:
        """Offsets of a member's header and of the next member, or of the directory."""
        begin = self.members[member].header_offset
        after = [info.header_offset for info in self.members.values() if info.header_offset > begin]
        return begin, min([*after, self.zip.start_dir])

    def read(self, member: str, limit: int) -> bytes:
        """Read a small member.

        Raises:
            RefusedError: it is larger than ``limit``, has an implausible compression ratio, or is
                damaged.
        """
        info = self.members[member]
        bounds.check_size(info.file_size, limit, self.where, member)
        bounds.check_ratio(info.file_size, info.compress_size, self.where, member)
        return b"".join(self._chunks(member))

    def extract(self, library: Library, target: Path) -> None:
        """Write a library to ``target``; the caller checks the sha256.

        Raises:
            RefusedError: the library is missing, has another size than the record says, has an
                implausible compression ratio, or is damaged.
        """
        info = self.members.get(library.file)
        if info is None:
            raise RefusedError(
                "missing",
                self.where,
                f"{library.file} is missing",
                expected="every library that the record lists",
            )
        if info.file_size != library.size:
            raise RefusedError(
                "size",
                self.where,
                f"{library.file} has {info.file_size} bytes",
                expected=f"{library.size} bytes, as the record says",
            )
        bounds.check_ratio(info.file_size, info.compress_size, self.where, library.file)
        with target.open("wb") as out:
            for chunk in self._chunks(library.file):
                out.write(chunk)

    def _chunks(self, member: str) -> Iterable[bytes]:
        info, got = self.members[member], 0
        try:
            with self.zip.open(info) as stream:
                while chunk := stream.read(bounds.MIB):
                    got += len(chunk)
                    yield chunk
        except _DAMAGE as error:
            raise RefusedError(
                "crc",
                self.where,
                f"{member}: {error}",
                expected="an undamaged member",
            ) from error
        if got != info.file_size:
            raise RefusedError(
                "size",
                self.where,
                f"{member} has {got} bytes",
                expected=f"{info.file_size} bytes, as the directory says",
            )


def _no_archive(where: str, error: Exception) -> RefusedError:
    return RefusedError(
        "directory",
        where,
        f"not an archive: {error}",
        expected="a zip archive with an undamaged directory",
    )


def check_wheel(archive: Archive, listed: set[str]) -> None:
    """Refuse members other than the package and its metadata, and libraries that are not listed.

    Args:
        archive: the wheel.
        listed: the libraries that its records list.

    Raises:
        RefusedError: the wheel has such a member.
    """
    for name in archive.members:
        top = name.split("/", 1)[0]
        if top not in _TOPS and not top.endswith((".dist-info", ".data")):
            raise RefusedError(
                "member-name",
                archive.where,
                f"{name!r} is outside vllm/",
                expected="only the package and its metadata",
            )
        if top in _TOPS and ".so" in name.rsplit("/", 1)[-1] and name not in listed:
            raise RefusedError(
                "member-name",
                archive.where,
                f"no record lists {name!r}",
                expected="only libraries that a record lists",
            )
