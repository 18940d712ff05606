# SPDX-License-Identifier: Apache-2.0
"""Reads and writes the indexes (``repodata.json``) of a local channel.

An index may be anything that somebody put at its name. rattler opens it without a look: it waits
for ever at a FIFO and reads a device until the memory is exhausted. So every index of a local
channel is read here first, with a bound, before rattler gets the channel.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import TYPE_CHECKING, Any

from rattler.index import index_fs

from vllm_build.util.errors import BuildError, IntegrityError
from vllm_build.util.files import NotRegularError, TooLargeError, read_bytes, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

#: Bytes of an index. conda-forge's largest has half of it.
LIMIT = 512 << 20
#: The keys that list packages.
KINDS = ("packages", "packages.conda")
SUBDIRS = ("linux-64", "noarch")
#: The name of the index in each subdir.
INDEX = "repodata.json"
#: What rattler says of an index, or of an entry of one, that it cannot read.
_UNREADABLE = ("failed to parse repodata", "failed to extract repodata records")


def damaged(index: object, why: str) -> IntegrityError:
    """The error for an index that is damaged."""
    return IntegrityError(
        f"{index} is damaged: {why}",
        expected="the index of a conda channel",
        remedy="remove the index and make the channel again: vllm-build package, vllm-build "
        "toolchain",
    )


def read(index: Path) -> dict[str, dict[str, Any]]:
    """The entries of an index by file name.

    Raises:
        OSError: there is none, or the system does not let it be read.
        IntegrityError: what lies at its name is no index.
    """
    try:
        document = json.loads(read_bytes(index, LIMIT))
    except (NotRegularError, TooLargeError) as error:
        raise damaged(index, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise damaged(index, f"it is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise damaged(index, "it is no JSON object")
    found: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        entries = document.get(kind, {})
        if not isinstance(entries, dict):
            raise damaged(index, f"{kind!r} is no object")
        for name, entry in entries.items():
            _require_entry(index, name, entry)
            found[name] = entry
    return found


def _require_entry(index: Path, name: str, entry: object) -> None:
    """Check what this library uses of an entry; rattler checks the rest.

    Raises:
        IntegrityError: the entry has another form.
    """
    if "/" in name or name in ("", ".", ".."):
        raise damaged(index, f"it lists {name!r}, which is no file name")
    if not isinstance(entry, dict):
        raise damaged(index, f"the entry of {name} is no object")
    sha256, size = entry.get("sha256"), entry.get("size")
    if not (sha256 is None or isinstance(sha256, str)):
        raise damaged(index, f"the sha256 of {name} is no text")
    if not (size is None or (type(size) is int and size >= 0)):
        raise damaged(index, f"the size of {name} is no number of bytes")


def names(folder: Path) -> dict[str, dict[str, Any]]:
    """``<subdir>/<file>`` → entry, of every package that the channel ``folder`` lists; an index that is missing or damaged lists nothing.

    Raises:
        OSError: the system does not let an index be read.
    """
    found: dict[str, dict[str, Any]] = {}
    for subdir in SUBDIRS:
        try:
            entries = read(folder / subdir / INDEX)
        except (FileNotFoundError, IntegrityError):
            continue
        found |= {f"{subdir}/{name}": entry for name, entry in entries.items()}
    return found


def require(folders: Iterable[Path]) -> None:
    """Check the indexes that rattler reads of these channels.

    A missing one is left to rattler, which says what it looked for.

    Raises:
        IntegrityError: one is damaged. OSError: the system does not let one be read.
    """
    for folder in folders:
        for subdir in SUBDIRS:
            try:
                read(folder / subdir / INDEX)
            except FileNotFoundError:
                continue


def of_rattler(said: str, channels: Iterable[str]) -> IntegrityError | None:
    """The error for what rattler said, where it found a damaged index or entry in one of ``channels``; it does not say in which."""
    if not any(words in said for words in _UNREADABLE):
        return None
    return damaged(f"an index of {' or '.join(dict.fromkeys(channels))}", said)


def indexed(folder: Path) -> dict[str, str]:
    """``<subdir>/<file>`` → sha256 of every package that the channel's index lists; nothing where there is no index.

    Raises:
        OSError: the system does not let an index be read.
    """
    return {
        name: str(entry.get("sha256"))
        for name, entry in names(folder).items()
        if name.endswith(".conda")
    }


def _document(subdir: str, entries: Mapping[str, Mapping[str, Any]]) -> str:
    document = {
        "info": {"subdir": subdir},
        "packages": {},
        "packages.conda": entries,
        "removed": [],
        "repodata_version": 1,
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def initialise(folder: Path) -> None:
    """Make an empty channel of ``folder``; an existing one is left as it is.

    Raises:
        ResourceError: the disk is full.
    """
    for subdir in SUBDIRS:
        index = folder / subdir / INDEX
        if not index.is_file():
            # Renamed into place: writing into what lies there would wait for the reader of a FIFO,
            # or fill a device.
            write_text(index, _document(subdir, {}))


def write(folder: Path, packages: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the indexes of ``folder`` from entries by ``<subdir>/<file>``; one that would not change stays untouched.

    Raises:
        ResourceError: the disk is full.
    """
    for subdir in SUBDIRS:
        text = _document(
            subdir,
            {
                name.partition("/")[2]: entry
                for name, entry in packages.items()
                if name.startswith(f"{subdir}/")
            },
        )
        index = folder / subdir / INDEX
        if not index.is_file() or index.read_bytes() != text.encode():
            write_text(index, text)


def index_files(folder: Path) -> None:
    """Write the indexes anew from the files: kept entries would hold the old sha256 of a file that was replaced (conda/rattler#2608)."""
    asyncio.run(index_fs(str(folder), write_zst=False, write_shards=False, force=True))


def index_entries(folder: Path, packages: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Index ``folder``, and return the entries of ``packages`` in it by ``<subdir>/<file>``.

    Raises:
        BuildError: a package does not appear in the index: it is damaged.
        IntegrityError: the index is damaged. OSError: the system does not let it be read.
    """
    index_files(folder)
    result: dict[str, dict[str, Any]] = {}
    for package in packages:
        subdir = package.parent.name
        entry = read(folder / subdir / INDEX).get(package.name)
        if entry is None:
            raise BuildError(
                f"{package.name} was built but cannot be indexed",
                remedy="run the same command again",
            )
        result[f"{subdir}/{package.name}"] = entry
    return result


def publish(files: Iterable[Path], folder: Path) -> list[Path]:
    """Put packages (``.../<subdir>/<name>.conda``) into the channel ``folder`` and index it; a name that is there already stays as it is.

    Each file is copied under a temporary name and renamed, so a channel never shows half a package.
    """
    initialise(folder)
    published = []
    for file in files:
        target = folder / file.parent.name / file.name
        published.append(target)
        if target.is_file():
            continue
        temporary = target.with_name("." + target.name + ".new")
        shutil.copyfile(file, temporary)
        temporary.replace(target)
    index_files(folder)
    return published
