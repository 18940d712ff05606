# SPDX-License-Identifier: Apache-2.0
"""Unpacks the archive of a locked source, member by member, and refuses strange members."""

from __future__ import annotations

import errno
import gzip
import io
import lzma
import shutil
import tarfile
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from vllm_build.util.errors import IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.sources.third_party import Source

#: Far more than any locked archive contains. A larger archive is not the locked one.
_MAX_BYTES, _MAX_MEMBERS = 1 << 30, 200_000
#: A damaged or strange archive raises these: broken compression, and a name with a NUL.
_DAMAGED = (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, ValueError)
#: Errors of the system for two members with one path, a path that is a file and a folder, and a
#: name that no file can have.
_IMPOSSIBLE = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)


def _checked(member: tarfile.TarInfo, source: Source) -> tarfile.TarInfo | None:
    """The member without the archive's top folder in its name; None if it is not extracted."""
    parts = PurePosixPath(member.name).parts
    if (
        PurePosixPath(member.name).is_absolute()
        or ".." in parts
        or not (member.isfile() or member.isdir() or member.issym())
    ):
        raise IntegrityError(
            f"{source.filename} contains {member.name!r}, which must not be extracted",
            expected="plain files below one folder",
        )
    if len(parts) < 2:  # noqa: PLR2004 - the top folder, and a name in it
        return None
    member.name = "/".join(parts[1:])
    if not source.includes(member.name):
        return None
    if member.issym():
        if source.include:
            raise IntegrityError(
                f"{source.filename} has the link {member.name} in a part that is extracted",
                expected="plain files: a link could lead anywhere, and its target would be missing",
            )
        # Symbolic links in whole archives belong to documentation; no compiled file needs one.
        return None
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def unpack(source: Source, archive: Path, folder: Path) -> None:
    """Unpack the included part of ``archive`` into ``folder``, without the archive's top folder.

    Raises:
        IntegrityError: the archive is damaged, or has a member that must not be extracted.
        OSError: a file cannot be written.
    """
    total, tops = 0, set()
    try:
        with tarfile.open(archive) as tar:
            for count, member in enumerate(tar):
                total += member.size
                if total > _MAX_BYTES or count > _MAX_MEMBERS:
                    raise IntegrityError(
                        f"{source.filename} unpacks to an implausible amount of data",
                        expected="a source archive",
                    )
                tops.add(PurePosixPath(member.name).parts[:1])
                checked = _checked(member, source)
                if len(tops) > 1:
                    raise IntegrityError(
                        f"{source.filename} has several folders at its top",
                        expected="plain files below one folder",
                    )
                if checked is None:
                    continue
                target = folder / checked.name
                if checked.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with (
                    target.open("xb") as stream,
                    tar.extractfile(member) or io.BytesIO() as content,
                ):
                    shutil.copyfileobj(content, stream)
                target.chmod(checked.mode)
    except OSError as error:
        if error.errno not in _IMPOSSIBLE and not isinstance(error, gzip.BadGzipFile):
            raise
        raise IntegrityError(
            f"{archive} cannot be unpacked: {error}", expected="the locked archive"
        ) from error
    except _DAMAGED as error:
        raise IntegrityError(
            f"{archive} cannot be unpacked: {error}", expected="the locked archive"
        ) from error
