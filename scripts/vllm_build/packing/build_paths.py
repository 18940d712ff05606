# SPDX-License-Identifier: Apache-2.0
"""Refuses packages that contain a path of the machine that built them.

Such a package would have other bytes if it were built in another folder, and it could reveal who
built it. The search covers every file of the package, its metadata, and the content of nested
archives (zip, gzip, bzip2, xz, zstd, tar).
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import zstandard

from vllm_build.util import paths
from vllm_build.util.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: The depth to which nested archives are opened, and the largest unpacked size in bytes.
_DEPTH = 3
_LARGEST = 1 << 30
#: A character of a path.
_PATH = rb"[^\x00-\x20\"'`<>|;:,()\[\]{}\\$*?&!=\x7f-\xff]"
#: Matches before a path that is only the end of a longer one (``/opt/tools/root``), but not within
#: a URL (``file:///root``).
_LONGER = re.compile(rb"(?<![:/])/[\w.+@~%-][\w.+@~%/-]*$")
#: These folders exist on every machine, so their names reveal nothing.
_SHARED_TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 -- names to recognise, nothing is written there
_MAGIC: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": lambda data: gzip.GzipFile(fileobj=io.BytesIO(data)).read(_LARGEST),
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\x00": lzma.decompress,
    b"\x28\xb5\x2f\xfd": lambda data: (
        zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read(_LARGEST)
    ),
}


@dataclass(frozen=True)
class Root:
    """A folder whose path no package may contain.

    Attributes:
        path: the folder.
        existing: only existing paths below it count. The user's home may have the same name as the
            home of someone who built a file upstream.
    """

    path: bytes
    existing: bool = False


def roots(*folders: Path) -> tuple[Root, ...]:
    """List the folders whose paths packages built on this machine may not contain.

    These are ``folders``, the cache, this checkout, the user's home and the temporary folder.
    """
    found: dict[bytes, Root] = {}
    own = [*folders, paths.cache_root(), paths.source_root()]
    temporary = tempfile.gettempdir()
    if temporary not in _SHARED_TEMPORARY:
        own.append(Path(temporary))
    for folder in own:
        for spelling in {folder.absolute(), folder.resolve()}:
            # The name of a folder directly below "/" is too short to be unambiguous.
            existing = spelling.parent == Path("/")
            for text in {str(spelling), quote(str(spelling))}:
                found[text.encode()] = Root(text.encode(), existing)
    try:
        home = Path.home()
    except RuntimeError:
        home = Path("/")
    for spelling in {home.absolute(), home.resolve()}:
        found.setdefault(str(spelling).encode(), Root(str(spelling).encode(), existing=True))
    return tuple(root for root in found.values() if len(root.path) > 1)


def find(data: bytes, forbidden: Iterable[Root]) -> str | None:
    """Return the first path in ``data`` that is one of ``forbidden`` or lies below it."""
    for root in forbidden:
        start = data.find(root.path)
        while start >= 0:
            match = re.compile(
                re.escape(root.path) + rb"(?:/" + _PATH + rb"*)?(?!" + _PATH + rb")"
            ).match(data, start)
            if match and not _LONGER.search(data, max(0, start - 300), start):
                text = match.group().decode(errors="replace")
                if not root.existing or _exists(text, root):
                    return text
            start = data.find(root.path, start + 1)
    return None


def _exists(text: str, root: Root) -> bool:
    """Whether the path or its parent, for a file that was removed, exists below the root."""
    path, top = Path(text), Path(root.path.decode())
    try:
        return any(
            candidate != top and top in candidate.parents and candidate.exists()
            for candidate in (path, path.parent)
        )
    except OSError:
        # The name is too long, or the folder may not be read.
        return False


def _inside(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """The members of ``data`` if it is an archive that can be opened."""
    for magic, unpack in _MAGIC.items():
        if data.startswith(magic):
            try:
                yield f"{name}, decompressed", unpack(data)
            except (OSError, EOFError, lzma.LZMAError, zstandard.ZstdError, ValueError):
                return
            return
    if data.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                for item in archive.infolist():
                    if item.file_size <= _LARGEST:
                        yield f"{name}, {item.filename}", archive.read(item)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError):
            return
    elif data[257:262] == b"ustar":
        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                yield from _tar(tar, f"{name}, ")
        except tarfile.TarError:
            return


def _tar(archive: tarfile.TarFile, before: str = "") -> Iterator[tuple[str, bytes]]:
    for member in archive:
        content = archive.extractfile(member) if member.isfile() else None
        # The target of a link counts as content.
        yield before + member.name, content.read() if content else member.linkname.encode()


def _searched(name: str, data: bytes, depth: int = _DEPTH) -> Iterator[tuple[str, bytes]]:
    yield name, data
    if depth:
        for inner, content in _inside(name, data):
            yield from _searched(inner, content, depth - 1)


def check(package: Path, forbidden: Iterable[Root]) -> None:
    """Search all content of ``package``.

    Raises:
        BuildError: it contains a path of ``forbidden``; the message names the path and the file.
    """
    listed = tuple(forbidden)
    with zipfile.ZipFile(package) as archive:
        for part in archive.namelist():
            if not part.endswith(".tar.zst"):
                _refuse(package, part, archive.read(part), listed)
                continue
            with tempfile.TemporaryFile() as stream:
                with archive.open(part) as packed:
                    zstandard.ZstdDecompressor().copy_stream(packed, stream)
                stream.seek(0)
                with tarfile.open(fileobj=stream) as members:
                    for name, data in _tar(members):
                        _refuse(package, name, data, listed)


def _refuse(package: Path, member: str, data: bytes, forbidden: tuple[Root, ...]) -> None:
    for name, content in _searched(member, data):
        found = find(content, forbidden)
        if found is not None:
            raise BuildError(
                f"{package.name} names a folder of this machine: {found} in {name}",
                expected="the same bytes in whichever folder it is built",
                remedy="map the path when the file is made (-ffile-prefix-map, compileall -s, "
                "#!/usr/bin/env), or leave the file out",
            )
