# SPDX-License-Identifier: Apache-2.0
"""The inputs of one output's kernel digest: everything that affects its binaries, by name.

``csrc/kernels.toml [extension NAME]``
    The expanded record as canonical JSON. Layout, short forms and comments do not count, nor do
    records of other outputs.
``csrc/kernels.toml [kernel NAME]``
    The same for a kernel.
``third_party/lock.toml [NAME]``
    Name, version, archive and extracted part of a project that the lock assigns to the output.
any other name
    A file: a source of the records; a header of the tree that one of them includes, directly or
    not and under any condition; our patch of the third-party project; or a file that affects every
    library (:mod:`vllm_build.digests.digest_rules`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_build.digests import digest_rules, tree_files
from vllm_build.kernels import kernels_table
from vllm_build.sources import third_party
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE = kernels_table.TABLE
PATCHES = "third_party/patches"
_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]+"([^"\n]+)"', re.MULTILINE)


def _table(root: Path) -> dict[str, list[dict[str, Any]]]:
    """The expanded records of both kinds.

    The keys that this module uses exist and have the right type; other keys are unchecked.

    Raises:
        ConfigurationError: the table cannot be read, or a record lacks a key that this module uses.
    """
    document, written = kernels_table.read(root / TABLE)
    found: dict[str, list[dict[str, Any]]] = {}
    for kind, names in (("extension", ("name", "component")), ("kernel", ("name", "extension"))):
        records = kernels_table.records(document, written, kind)
        for record in records:
            for name in names:
                record.text(name)
            record.texts("sources", required=not record.has("third_party_sources"))
            record.texts("headers", required=False)
            record.flag("optional")
        found[kind] = [record.data for record in records]
    return found


def components(root: Path) -> tuple[str, ...]:
    """The outputs that contain libraries, in the table's order.

    Raises:
        ConfigurationError: the table cannot be read.
    """
    return tuple(dict.fromkeys(extension["component"] for extension in _table(root)["extension"]))


def _canonical(value: object) -> str:
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()


def _included(root: Path, sources: Iterable[Path]) -> set[Path]:
    """The sources, and every file of the tree that they include in quotes, directly or not."""
    found: set[Path] = set()
    waiting = list(sources)
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for name in _INCLUDE.findall(path.read_bytes()):
            text = name.decode(errors="replace")
            # The compiler's search order: the file's folder, then csrc/. A name that is in neither
            # of them belongs to a third party.
            for folder in (path.parent, root / "csrc"):
                if (candidate := folder / text).is_file():
                    waiting.append(Path(os.path.normpath(candidate)))
                    break
    return found


def locked(root: Path, output: str) -> dict[str, str]:
    """Entry → sha256 of the lock's entries for the sources that become part of an output.

    Raises:
        ConfigurationError: the lock cannot be read.
    """
    return {
        f"{third_party.LOCK} [{source.name}]": _canonical(
            [
                source.name,
                source.version,
                source.filename,
                source.size,
                source.sha256,
                *source.include,
            ]
        )
        for source in third_party.read(root).values()
        if output in source.outputs
    }


def of(root: Path, component: str) -> dict[str, str]:
    """Entry → sha256 of everything that affects the libraries of ``component``, for all devices.

    Raises:
        ConfigurationError: there is no such output, or the tree lacks a file.
    """
    table = _table(root)
    extensions = [record for record in table["extension"] if record["component"] == component]
    if not extensions:
        raise ConfigurationError(
            f"no extension belongs to {component!r}",
            expected="one of " + ", ".join(components(root)),
        )
    names = {record["name"] for record in extensions}
    kernels = [record for record in table["kernel"] if record["extension"] in names]
    entries = {f"{TABLE} [extension {record['name']}]": _canonical(record) for record in extensions}
    entries |= {f"{TABLE} [kernel {record['name']}]": _canonical(record) for record in kernels}

    sources: set[Path] = set()
    for record in (*extensions, *kernels):
        listed = {root / "csrc" / source for source in record.get("sources", ())}
        missing = {source for source in listed if not source.is_file()}
        if missing and not record.get("optional"):
            raise ConfigurationError(
                f"{min(missing)} does not exist",
                expected="a complete source tree",
                remedy="check out the tree again",
            )
        sources |= listed - missing
        sources |= tree_files.below(
            root, (f"csrc/{folder}" for folder in record.get("headers", ()))
        )
    entries |= locked(root, component)
    inputs = [
        f"{PATCHES}/{source.name}"
        for source in third_party.read(root).values()
        if component in source.outputs and (root / PATCHES / source.name).is_dir()
    ]
    files = (
        _included(root, sources) | tree_files.below(root, inputs) | digest_rules.of_libraries(root)
    )
    return entries | digest_rules.digests_of(root, files)
