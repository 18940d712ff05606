# SPDX-License-Identifier: Apache-2.0
"""``csrc/ops.toml``: the reference list of ops, by the kernel that registers them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vllm_build.errors import ConfigurationError
from vllm_build.records import Record, require_document

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vllm_build.plan import Plan

TABLE = "csrc/ops.toml"
_KEY = re.compile(r"[A-Z][A-Za-z0-9]*")
_SCHEMA = re.compile(r"\w+::\w+(\.\w+)?\(.*\) -> \S.*", re.ASCII)

_WORDS = {"record": "{kind!r} is not a table", "item": "{key} = {value!r} is not valid"}

#: Kernel → dispatch key → schemas.
OpTable = dict[str, dict[str, tuple[str, ...]]]


def _schemas(record: Record, key: str) -> tuple[str, ...]:
    if not _KEY.fullmatch(key):
        record.fail(key, f"{key!r} is not a dispatch key", "a key of torch, such as CPU or CUDA")
    return record.texts(key, _SCHEMA)


def _of_other(record: Record, key: str, table: OpTable) -> tuple[str, ...]:
    """The schemas of another kernel, which implements the same ops for another device."""
    other = record.text(key)
    schemas = [found for found in table.get(other, {}).values() if found]
    if not _KEY.fullmatch(key) or len(schemas) != 1:
        record.fail(key, f"{key} = {other!r} is not valid", "a dispatch key, and a kernel of this table with schemas for one key")
    return schemas[0]


def load(root: Path) -> OpTable:
    """Read the table below the source root.

    Raises:
        ConfigurationError: the file is missing, is no TOML, or an entry is malformed. The message names the file and the line.
    """
    document = require_document(root / TABLE, "the list of ops", words=_WORDS)
    records = {kernel: document.root.table(kernel, label=f"[{kernel}]: ") for kernel in document.data}
    table: OpTable = {}
    for kernel, record in records.items():
        table[kernel] = {key: _schemas(record, key) for key, value in record.data.items() if not isinstance(value, str)}
    for kernel, record in records.items():
        for key, value in record.data.items():
            if isinstance(value, str):
                table[kernel][key] = _of_other(record, key, table)
    return table


def of_plan(table: OpTable, plan: Plan) -> Mapping[str, tuple[str, ...]]:
    """Dispatch key → schemas that the libraries of ``plan`` must register.

    Raises:
        ConfigurationError: a planned kernel has no entry.
    """
    found: dict[str, tuple[str, ...]] = {}
    for extension in plan.extensions:
        for kernel in extension.kernels:
            if kernel.name not in table:
                raise ConfigurationError(
                    f"{TABLE} has no entry for the kernel {kernel.name!r}",
                    expected=f"[{kernel.name}] with the schemas that it registers; an empty table when it registers none",
                    remedy=f"add it to {TABLE}",
                )
            for key, schemas in table[kernel.name].items():
                found[key] = (*found.get(key, ()), *schemas)
    return found
