# SPDX-License-Identifier: Apache-2.0
"""Reads and writes the indexes (``repodata.json``) of a local channel.

The file of an index may be anything. rattler opens it without a check: it waits forever for a FIFO
and reads a device until memory is exhausted. So this module reads every index of a local channel
first, with a size limit, before rattler uses the channel.
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

#: The largest size of an index in bytes. conda-forge's largest index has half of it.
LIMIT = 512 << 20
#: The keys that list packages.
KINDS = ("packages", "packages.conda")
SUBDIRS = ("linux-64", "noarch")
#: The name of the index in each subdir.
INDEX = "repodata.json"
#: rattler's messages about an index, or an entry of one, that it cannot read.
_UNREADABLE = ("failed to parse repodata", "failed to extract repodata records")


def damaged(index: object, why: str) -> IntegrityError:
    """Make the error for a damaged index."""
    return IntegrityError(
        f"{index} is damaged: {why}",
        expected="the index of a conda channel",
        remedy="remove the index and make the channel again (vllm-build package, or vllm-build "
        "toolchain)",
    )


def read(index: Path) -> dict[str, dict[str, Any]]:
    """Read the entries of an index, by file name.

    Raises:
        OSError: the file does not exist or cannot be read.
        IntegrityError: it is not an index.
    """
    try:
        document = json.loads(read_bytes(index, LIMIT))
    except (NotRegularError, TooLargeError) as error:
        raise damaged(index, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise damaged(index, f"it is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise damaged(index, "it is not a JSON object")
    found: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        entries = document.get(kind, {})
        if not isinstance(entries, dict):
            raise damaged(index, f"{kind!r} is not an object")
        for name, entry in entries.items():
            _require_entry(index, name, entry)
            found[name] = entry
    return found


def _require_entry(index: Path, name: str, entry: object) -> None:
    """Check the fields of an entry that this library uses; rattler checks the rest.

    Raises:
        IntegrityError: the entry is malformed.
    """
    if "/" in name or name in ("", ".", ".."):
        raise damaged(index, f"it lists {name!r}, which is not a file name")
    if not isinstance(entry, dict):
        raise damaged(index, f"the entry of {name} is not an object")
    sha256, size = entry.get("sha256"), entry.get("size")
    if not (sha256 is None or isinstance(sha256, str)):
        raise damaged(index, f"the sha256 of {name} is not a string")
    if not (size is None or (type(size) is int and size >= 0)):
        raise damaged(index, f"the size of {name} is not a number of bytes")


def names(folder: Path) -> dict[str, dict[str, Any]]:
    """Map ``<subdir>/<file>`` to the entry, for every package that the channel ``folder`` lists.

    A missing or damaged index counts as empty.

    Raises:
        OSError: an index cannot be read.
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
    """Check the indexes that rattler reads from these channels.

    Missing indexes are left to rattler, whose message names the file.

    Raises:
        IntegrityError: an index is damaged.
        OSError: an index cannot be read.
    """
    for folder in folders:
        for subdir in SUBDIRS:
            try:
                read(folder / subdir / INDEX)
            except FileNotFoundError:
                continue


def of_rattler(said: str, channels: Iterable[str]) -> IntegrityError | None:
    """Make the error for rattler's message ``said`` if it is about a damaged index or entry.

    rattler does not say which one, so the error names all ``channels``.
    """
    if not any(words in said for words in _UNREADABLE):
        return None
    return damaged(f"an index of {' or '.join(dict.fromkeys(channels))}", said)


def indexed(folder: Path) -> dict[str, str]:
    """Map ``<subdir>/<file>`` to the sha256 in the index, for every package of the channel.

    A missing or damaged index counts as empty.

    Raises:
        OSError: an index cannot be read.
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
    """Make ``folder`` an empty channel; an existing channel stays as it is.

    Raises:
        ResourceError: the disk is full.
    """
    for subdir in SUBDIRS:
        index = folder / subdir / INDEX
        if not index.is_file():
            # write_text renames the file into place: opening the path could block on a FIFO or
            # write to a device.
            write_text(index, _document(subdir, {}))


def write(folder: Path, packages: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the indexes of ``folder`` from entries by ``<subdir>/<file>``.

    An index that would not change is not written.

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
    """Write the indexes from the files.

    No old entries are kept: they would hold the old sha256 of a replaced file (conda/rattler#2608).
    """
    asyncio.run(index_fs(str(folder), write_zst=False, write_shards=False, force=True))


def index_entries(folder: Path, packages: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Index ``folder`` and return the entries of ``packages``, by ``<subdir>/<file>``.

    Raises:
        BuildError: a package is not in the index, because it is damaged.
        IntegrityError: the index is damaged.
        OSError: the index cannot be read.
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
    """Copy packages (``.../<subdir>/<name>.conda``) into the channel ``folder`` and index it.

    An existing package of the same name is kept. Each file is copied under a temporary name and
    renamed, so a channel never contains a partial package. Returns the paths in the channel.
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
