# SPDX-License-Identifier: Apache-2.0
"""Rewrites ``.conda`` files so that the same content has the same bytes.

rattler-build records when and where a package was made. It writes the current time into the index
and every archive member, takes file modes from the umask, orders dependencies by a randomly seeded
hash map, writes the addresses of the channels, and leaves the path of the build's host prefix where
an installer puts the real one. This module replaces all of these. It does not read
``SOURCE_DATE_EPOCH``, which is not part of a package's name and so must not affect its content.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import zipfile
from typing import IO, TYPE_CHECKING, Any

import zstandard

from vllm_build.util.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

#: The time stamp of packages, in seconds: 1980-01-01, the first date that a zip archive can hold.
EARLIEST = 315_532_800
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
#: The compression level, as in conda-forge: level 19 takes twice as long for 2 % fewer bytes. It
#: affects the bytes.
LEVEL = 16
#: Replaces the path of the host prefix, which rattler-build pads to a fixed length. The length must
#: not change, because installers replace the path inside binaries.
PLACEHOLDER = "/opt/vllm-build/host_env" + "_placehold" * 30
_SPOOLED = 64 << 20


def _placeholder(length: int) -> str:
    return PLACEHOLDER[:length]


def _index(document: dict[str, Any]) -> dict[str, Any]:
    lists: dict[str, Any] = {
        key: sorted(document[key]) for key in ("depends", "constrains") if key in document
    }
    return {**document, **lists, "timestamp": EARLIEST * 1000}


def _about(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "channels"}


_DOCUMENTS = {"info/index.json": _index, "info/about.json": _about}


class _Prefixes:
    """The files of a package that contain its prefix, and their hashes after the replacement."""

    def __init__(self, paths: Mapping[str, Any]) -> None:
        self.document = paths
        self.by_name = {
            entry["_path"]: entry
            for entry in paths.get("paths", [])
            if entry.get("prefix_placeholder")
        }
        self._now: dict[str, str] = {}

    def replace(self, name: str, data: bytes) -> bytes:
        """Return the content of a file with the fixed placeholder."""
        entry = self.by_name[name]
        old = str(entry["prefix_placeholder"])
        data = data.replace(old.encode(), _placeholder(len(old)).encode())
        self._now[str(entry["sha256"])] = hashlib.sha256(data).hexdigest()
        return data

    def finished(self) -> dict[str, Any]:
        """Return ``paths.json`` for the files after the replacement."""
        for entry in self.by_name.values():
            entry["prefix_placeholder"] = _placeholder(len(entry["prefix_placeholder"]))
        # Found by sha256 instead of by name, because a link has the sha256 of its target.
        for entry in self.document.get("paths", []):
            if entry.get("sha256") in self._now:
                entry["sha256"] = self._now[entry["sha256"]]
        return dict(self.document)


def _member(member: tarfile.TarInfo) -> None:
    """Set a fixed time, no owner, and a mode that depends only on the executable bit."""
    member.mtime, member.uid, member.gid, member.uname, member.gname, member.pax_headers = (
        EARLIEST,
        0,
        0,
        "",
        "",
        {},
    )
    member.mode = 0o755 if not member.isfile() or member.mode & 0o100 else 0o644


def _decompressed(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """Decompress a tar archive of the package, to a temporary file if it is large."""
    target = tempfile.SpooledTemporaryFile(max_size=_SPOOLED)  # noqa: SIM115 -- the caller closes it
    with archive.open(name) as source:
        zstandard.ZstdDecompressor().copy_stream(source, target)
    target.seek(0)
    return target


def _rewrite(
    old: tarfile.TarFile,
    new: tarfile.TarFile,
    replaced: Mapping[str, dict[str, Any]],
    prefixes: _Prefixes,
) -> None:
    """Copy the members, sorted by name."""
    for member in sorted(old.getmembers(), key=lambda m: m.name):
        content = old.extractfile(member) if member.isfile() else None
        _member(member)
        if content is None:
            new.addfile(member)
            continue
        if member.name in replaced:
            data: bytes | None = json.dumps(
                replaced[member.name], indent=2, sort_keys=True
            ).encode()
        elif member.name in _DOCUMENTS:
            data = json.dumps(
                _DOCUMENTS[member.name](json.load(content)), indent=2, sort_keys=True
            ).encode()
        elif member.name in prefixes.by_name:
            data = prefixes.replace(member.name, content.read())
        else:
            data = None
        with tempfile.SpooledTemporaryFile(max_size=_SPOOLED) as changed:
            if data is not None:
                changed.write(data)
                changed.seek(0)
                member.size = len(data)
            new.addfile(member, content if data is None else changed)


def _compressed(
    old: tarfile.TarFile, replaced: Mapping[str, dict[str, Any]], prefixes: _Prefixes, level: int
) -> IO[bytes]:
    target = tempfile.SpooledTemporaryFile(max_size=_SPOOLED)  # noqa: SIM115 -- the caller closes it
    with tempfile.SpooledTemporaryFile(max_size=_SPOOLED) as plain:
        with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as new:
            _rewrite(old, new, replaced, prefixes)
        size = plain.tell()
        plain.seek(0)
        # Any number of threads gives the same bytes. Without threads (0), they would be others,
        # because the data is then not divided.
        threads = len(os.sched_getaffinity(0))
        zstandard.ZstdCompressor(level=level, threads=threads, write_content_size=True).copy_stream(
            plain, target, size=size
        )
    target.seek(0)
    return target


def _parts(archive: zipfile.ZipFile) -> Iterator[str]:
    """The members in the order of rewriting: the files before the metadata about them."""
    yield from sorted(archive.namelist(), key=lambda n: (not n.startswith("pkg-"), n))


def _paths_of(archive: zipfile.ZipFile) -> dict[str, Any]:
    for name in archive.namelist():
        if name.startswith("info-") and name.endswith(".tar.zst"):
            with _decompressed(archive, name) as stream, tarfile.open(fileobj=stream) as info:
                content = info.extractfile("info/paths.json")
                document: dict[str, Any] = json.load(content) if content else {}
                return document
    raise zipfile.BadZipFile("it has no info archive")


def normalise(package: Path, level: int = LEVEL) -> None:
    """Rewrite ``package`` in place, atomically.

    Args:
        package: a ``.conda`` file.
        level: the compression level of zstd.

    Raises:
        IntegrityError: it is not a ``.conda`` file.
    """
    temporary = package.with_name("." + package.name + ".normalised")
    parts: dict[str, IO[bytes]] = {}
    try:
        with zipfile.ZipFile(package) as old:
            prefixes = _Prefixes(_paths_of(old))
            for name in _parts(old):
                if not name.endswith(".tar.zst"):
                    parts[name] = old.open(name)
                    continue
                replaced = (
                    {"info/paths.json": prefixes.finished()} if name.startswith("info-") else {}
                )
                with _decompressed(old, name) as stream, tarfile.open(fileobj=stream) as archive:
                    parts[name] = _compressed(archive, replaced, prefixes, level)
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as new:
                # The format requires metadata.json to be first.
                for name in sorted(parts, key=lambda n: (n != "metadata.json", n)):
                    entry = zipfile.ZipInfo(name, _ZIP_DATE)
                    entry.file_size = parts[name].seek(0, os.SEEK_END)
                    parts[name].seek(0)
                    with new.open(entry, "w") as target:
                        shutil.copyfileobj(parts[name], target)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zstandard.ZstdError,
        KeyError,
        ValueError,
    ) as error:
        temporary.unlink(missing_ok=True)
        raise IntegrityError(
            f"{package} is not a .conda file: {error}",
            expected="a zip archive of zstd-compressed tar archives",
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        for part in parts.values():
            part.close()
    temporary.replace(package)
