# SPDX-License-Identifier: Apache-2.0
"""Compares the ops that the engine's modules name with those that our libraries register.

The engine names ops of upstream's libraries as ``torch.ops._C.<name>``. Where an op is missing, the
engine fails, or it runs something slower; only a person can tell. ``third_party/engine-ops.toml``
therefore lists every op that is missing, with the reason. This module finds what is in no list.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.kernels import kernels_table, op_table
from vllm_build.kernels.kernel_records import KERNEL_DEVICES
from vllm_build.util.record_reader import Record, require_document

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TABLE = "third_party/engine-ops.toml"
#: ``torch.ops._C.name``, also on several lines, and ``getattr(torch.ops._C, "name")``.
_SPACE = r"\btorch[\s\\]*\.[\s\\]*ops[\s\\]*\.[\s\\]*(_\w+)"
#: A namespace without an op, which hides the ops that are called through it.
_HIDDEN = re.compile(r"^[^#\n]*" + _SPACE + r"(?!\w|[\s\\]*(?:\.|,\s*[\"']))", re.MULTILINE)
_CALL = re.compile(_SPACE + r"[\s\\]*(?:\.[\s\\]*(\w+)|,\s*[\"'](\w+)[\"'])")
#: The table lists ops that are missing, and ops with another schema than upstream's.
KINDS = ("gap", "spelled")
_OP = re.compile(r"_\w+::\w+")
_WORDS = {
    "record": "not a table",
    "missing": "{key!r} is missing",
    "text": "{key} = {value!r} is not a string",
}


@dataclass(frozen=True)
class Gap:
    """Ops that some devices do not have, or spell differently, and the reason."""

    reason: str
    devices: frozenset[str]
    ops: frozenset[str]


def calls(package: Path) -> dict[str, tuple[str, ...]]:
    """Qualified name of each op that the engine's modules name → these modules, sorted.

    Args:
        package: the folder of the engine's Python package.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for path in package.rglob("*.py"):
        # A module in another encoding has names in ASCII nevertheless.
        for space, attribute, quoted in _CALL.findall(path.read_text("utf-8", errors="replace")):
            found[f"{space}::{attribute or quoted}"].add(path.relative_to(package).as_posix())
    return {name: tuple(sorted(files)) for name, files in sorted(found.items())}


def hidden(package: Path) -> list[str]:
    """Where a module passes a whole namespace on, so that :func:`calls` misses ops; one line each.

    Args:
        package: the folder of the engine's Python package.
    """
    return [
        f"{path.relative_to(package).as_posix()} uses torch.ops.{space} without naming an op"
        for path in sorted(package.rglob("*.py"))
        for space in sorted(set(_HIDDEN.findall(path.read_text("utf-8", errors="replace"))))
    ]


def registered(root: Path) -> dict[str, frozenset[str]]:
    """Device → the qualified names of the ops that our libraries have for it.

    Raises:
        ConfigurationError: the table of kernels or a source is malformed.
    """
    table = op_table.load(root)
    found: dict[str, set[str]] = defaultdict(set)
    for kernel in kernels_table.load(root).kernels:
        names = {
            schema.partition("(")[0]
            for schemas in table[kernel.name].values()
            for schema in schemas
        }
        for device in kernel.devices:
            found[device] |= names
    return {device: frozenset(names) for device, names in found.items()}


def read(root: Path, kind: str = "gap") -> tuple[Gap, ...]:
    """The explained gaps, or the explained spellings.

    Args:
        root: the source tree.
        kind: ``gap`` for ops that are missing, ``spelled`` for ops with another schema.

    Raises:
        ConfigurationError: the table is missing or malformed.
    """
    document = require_document(
        root / TABLE, "the ops that are missing", remedy=f"correct {TABLE}", words=_WORDS
    )
    document.root.allow("schema", *KINDS)
    entries = document.data.get(kind, [])
    if not isinstance(entries, list):
        document.root.fail(kind, f"{kind} is not an array of tables", f"[[{kind}]] tables")
    found = []
    for number, entry in enumerate(entries):
        record = Record(document, (kind, number), entry, what=f"[[{kind}]]")
        record.allow("reason", "devices", "ops")
        devices = record.texts("devices", choices=tuple(KERNEL_DEVICES), required=False)
        found.append(
            Gap(
                record.text("reason"),
                frozenset(devices or KERNEL_DEVICES),
                frozenset(record.texts("ops", _OP)),
            )
        )
    return tuple(found)


def unexplained(
    called: Mapping[str, tuple[str, ...]],
    present: Mapping[str, frozenset[str]],
    gaps: tuple[Gap, ...],
) -> list[str]:
    """What is in no list, and what is in a list wrongly; one line each.

    Args:
        called: result of :func:`calls`.
        present: result of :func:`registered`.
        gaps: result of :func:`read`.
    """
    found = []
    by = by_device(gaps)
    for device, ops in sorted(present.items()):
        listed = by.get(device, frozenset())
        found += [
            f"{device}: the engine names {op} ({called[op][0]}), which no library registers"
            for op in sorted(set(called) - ops - listed)
        ]
        found += [
            f"{device}: {op} is listed as missing, but a library registers it"
            for op in sorted(listed & ops)
        ]
    every = {op for gap in gaps for op in gap.ops}
    found += [
        f"{op} is listed as missing, but the engine does not name it"
        for op in sorted(every - set(called))
    ]
    return found


def by_device(entries: tuple[Gap, ...]) -> dict[str, frozenset[str]]:
    """Device → the ops that entries list for it."""
    return {
        device: frozenset(op for entry in entries if device in entry.devices for op in entry.ops)
        for device in KERNEL_DEVICES
    }
