# SPDX-License-Identifier: Apache-2.0
"""Refuses a package that holds a path of the machine that built it: it would have other bytes in another folder, and tell who built it.

Every file of the package is searched, its metadata included, and what is packed inside of them
(zip, gzip, bzip2, xz, zstd, tar).
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

#: How deep archives inside of archives are opened, and how large an unpacked one may be.
_DEPTH = 3
_LARGEST = 1 << 30
#: What a path is made of; anything else ends it.
_PATH = rb"[^\x00-\x20\"'`<>|;:,()\[\]{}\\$*?&!=\x7f-\xff]"
#: In front of a path: a longer path that it is only the end of (``/opt/tools/root``), but not an
#: address (``file:///root``).
_LONGER = re.compile(rb"(?<![:/])/[\w.+@~%-][\w.+@~%/-]*$")
#: The same folder on every machine says nothing about any of them.
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
    """A folder that no package may name.

    Attributes:
        path: the folder.
        existing: only paths below it that exist count. A user's home may be called as that of
            somebody who built a file upstream.
    """

    path: bytes
    existing: bool = False


def roots(*folders: Path) -> tuple[Root, ...]:
    """What packages of this machine may not name: ``folders``, the cache, this checkout, the user's home and temporary folder."""
    found: dict[bytes, Root] = {}
    own = [*folders, paths.cache_root(), paths.source_root()]
    temporary = tempfile.gettempdir()
    if temporary not in _SHARED_TEMPORARY:
        own.append(Path(temporary))
    for folder in own:
        for spelling in {folder.absolute(), folder.resolve()}:
            # A folder directly below "/" has a name that anything may be called.
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
    """The first path below one of ``forbidden`` in ``data``."""
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
    """Whether the path, or the folder of a file that is gone by now, exists below the root and is not the root itself."""
    path, top = Path(text), Path(root.path.decode())
    try:
        return any(
            candidate != top and top in candidate.parents and candidate.exists()
            for candidate in (path, path.parent)
        )
    except OSError:
        # Longer than a name may be, or in a folder that is not ours.
        return False


def _inside(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """What ``data`` is an archive of; nothing when it is none, or one that cannot be opened."""
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
        # The target of a link is content, too.
        yield before + member.name, content.read() if content else member.linkname.encode()


def _searched(name: str, data: bytes, depth: int = _DEPTH) -> Iterator[tuple[str, bytes]]:
    yield name, data
    if depth:
        for inner, content in _inside(name, data):
            yield from _searched(inner, content, depth - 1)


def check(package: Path, forbidden: Iterable[Root]) -> None:
    """Search the whole of ``package``.

    Raises:
        BuildError: it names one of ``forbidden``; the message says where and which path.
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
                expected="the same bytes wherever it is built",
                remedy="map the path where the file is made (-ffile-prefix-map, compileall -s, "
                "#!/usr/bin/env), or leave the file out",
            )
