# SPDX-License-Identifier: Apache-2.0
"""Reads the index (``repodata.json``) of a local channel.

An index may be anything that somebody put at its name. rattler opens it without a look: it waits for ever at a FIFO and reads a device
until the memory is exhausted. So every index of a local channel is read here first, with a bound, before rattler gets the channel.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vllm_build.errors import IntegrityError
from vllm_build.files import NotRegularError, TooLargeError, read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: Bytes of an index. conda-forge's largest has half of it.
LIMIT = 512 << 20
#: The keys that list packages.
KINDS = ("packages", "packages.conda")
SUBDIRS = ("linux-64", "noarch")
#: What rattler says of an index, or of an entry of one, that it cannot read.
_UNREADABLE = ("failed to parse repodata", "failed to extract repodata records")


def damaged(index: object, why: str) -> IntegrityError:
    """The error for an index that is damaged."""
    return IntegrityError(
        f"{index} is damaged: {why}",
        expected="the index of a conda channel",
        remedy="remove the index and make the channel again: vllm-build package, vllm-build toolchain",
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
            entries = read(folder / subdir / "repodata.json")
        except (FileNotFoundError, IntegrityError):
            continue
        found |= {f"{subdir}/{name}": entry for name, entry in entries.items()}
    return found


def require(folders: Iterable[Path]) -> None:
    """Check the indexes that rattler reads of these channels. A missing one is left to rattler, which says what it looked for.

    Raises:
        IntegrityError: one is damaged. OSError: the system does not let one be read.
    """
    for folder in folders:
        for subdir in SUBDIRS:
            try:
                read(folder / subdir / "repodata.json")
            except FileNotFoundError:
                continue


def of_rattler(said: str, channels: Iterable[str]) -> IntegrityError | None:
    """The error for what rattler said, where it found a damaged index or entry in one of ``channels``; it does not say in which."""
    if not any(words in said for words in _UNREADABLE):
        return None
    return damaged(f"an index of {' or '.join(dict.fromkeys(channels))}", said)
