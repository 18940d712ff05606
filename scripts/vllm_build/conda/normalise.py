# SPDX-License-Identifier: Apache-2.0
"""Gives the same content the same bytes: rewrites a ``.conda`` file without the traces of when and where it was made.

rattler-build writes the wall clock into the index and every archive member, orders dependencies by a randomly seeded hash map, and names
the channels by their address. None of it is content.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import zstandard

from vllm_build.errors import ConfigurationError, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

#: 1980-01-01, the first date that a zip archive can hold.
EARLIEST = 315_532_800
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
#: What rattler-build's `conda:19` means, too; the thread count does not change the result, the level does.
_LEVEL = 19


def epoch() -> int:
    """The time that packages carry, in seconds: ``SOURCE_DATE_EPOCH`` when set, else 1980-01-01.

    Raises:
        ConfigurationError: the variable is not a number of seconds since 1980.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return EARLIEST
    if not text.isascii() or not text.isdigit() or int(text) < EARLIEST:
        raise ConfigurationError(f"SOURCE_DATE_EPOCH={text!r} is not a time", expected=f"seconds since 1970, at least {EARLIEST}")
    return int(text)


def _index(document: dict[str, Any], seconds: int) -> dict[str, Any]:
    lists: dict[str, Any] = {key: sorted(document[key]) for key in ("depends", "constrains") if key in document}
    return {**document, **lists, "timestamp": seconds * 1000}


def _about(document: dict[str, Any], _: int) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "channels"}


_DOCUMENTS = {"info/index.json": _index, "info/about.json": _about}


def _tar(data: bytes, seconds: int) -> bytes:
    """The archive with members in order of their names, all of one time, owned by nobody."""
    source = io.BytesIO(zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read())
    target = io.BytesIO()
    with tarfile.open(fileobj=source) as old, tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda m: m.name):
            content = old.extractfile(member) if member.isfile() else None
            member.mtime, member.uid, member.gid, member.uname, member.gname, member.pax_headers = seconds, 0, 0, "", "", {}
            if content is not None and member.name in _DOCUMENTS:
                document = _DOCUMENTS[member.name](json.load(content), seconds)
                text = json.dumps(document, indent=2, sort_keys=True).encode()
                member.size, content = len(text), io.BytesIO(text)
            new.addfile(member, content)
    return zstandard.ZstdCompressor(level=_LEVEL, threads=0, write_content_size=True).compress(target.getvalue())


def normalise(package: Path) -> None:
    """Rewrite ``package`` in place; it changes at once or not at all.

    Raises:
        IntegrityError: it is no ``.conda`` file.
    """
    seconds = epoch()
    temporary = package.with_name("." + package.name + ".normalised")
    try:
        with zipfile.ZipFile(package) as old, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as new:
            # metadata.json first, as the format asks for.
            for name in sorted(old.namelist(), key=lambda n: (n != "metadata.json", n)):
                data = old.read(name)
                if name.endswith(".tar.zst"):
                    data = _tar(data, seconds)
                new.writestr(zipfile.ZipInfo(name, _ZIP_DATE), data)
    except (zipfile.BadZipFile, tarfile.TarError, zstandard.ZstdError) as error:
        temporary.unlink(missing_ok=True)
        raise IntegrityError(
            f"{package} is not a .conda file: {error}", expected="a zip archive of zstd-compressed tar archives"
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(package)
