# SPDX-License-Identifier: Apache-2.0
"""``csrc/ops.toml``: the reference list of ops, by the kernel that registers them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vllm_build._toml import TOMLDecodeError, loads
from vllm_build.errors import ConfigurationError
from vllm_build.files import read_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vllm_build.plan import Plan

TABLE = "csrc/ops.toml"
_KEY = re.compile(r"[A-Z][A-Za-z0-9]*")
_SCHEMA = re.compile(r"\w+::\w+(\.\w+)?\(.*\) -> \S.*", re.ASCII)

#: Kernel → dispatch key → schemas.
OpTable = dict[str, dict[str, tuple[str, ...]]]


def _schemas(where: str, key: str, value: object) -> tuple[str, ...]:
    if not _KEY.fullmatch(key):
        raise ConfigurationError(f"{where}: {key!r} is not a dispatch key", expected="a key of torch, such as CPU or CUDA")
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and _SCHEMA.fullmatch(item) for item in value):
        raise ConfigurationError(f"{where}: {key} = {value!r} is not valid", expected='a list such as ["_C::name(Tensor x) -> Tensor"]')
    return tuple(value)


def _of_other(where: str, key: str, other: str, table: OpTable) -> tuple[str, ...]:
    """The schemas of another kernel, which implements the same ops for another device."""
    schemas = [found for found in table.get(other, {}).values() if found]
    if not _KEY.fullmatch(key) or len(schemas) != 1:
        raise ConfigurationError(
            f"{where}: {key} = {other!r} is not valid", expected="a dispatch key, and a kernel of this table with schemas for one key"
        )
    return schemas[0]


def load(root: Path) -> OpTable:
    """Read the table below the source root.

    Raises:
        ConfigurationError: the file is missing, is no TOML, or an entry is malformed.
    """
    path = root / TABLE
    try:
        data = loads(read_text(path))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}", expected="the list of ops", remedy="check the tree out again") from error
    except (TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}", expected="valid TOML", remedy="correct that line") from error
    table: OpTable = {}
    for kernel, keys in data.items():
        if not isinstance(keys, dict):
            raise ConfigurationError(f"{path}: {kernel!r} is not a table", expected=f"[{kernel}] and dispatch keys below it")
        table[kernel] = {key: _schemas(f"{path}: [{kernel}]", key, value) for key, value in keys.items() if not isinstance(value, str)}
    for kernel, keys in data.items():
        for key, value in keys.items():
            if isinstance(value, str):
                table[kernel][key] = _of_other(f"{path}: [{kernel}]", key, value, table)
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
