# SPDX-License-Identifier: Apache-2.0
"""The ops that the kernels register, read from the sources that register them.

Each schema is written once, in an ``m.def`` in ``csrc/bindings``. This module reads it from there,
so the checks after linking, the audit of foreign wheels and the tests need no second list::

    STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) { m.def("f(Tensor x) -> Tensor"); }
    // for the device of the kernel:
    VLLM_LIBRARY_IMPL(_C, m) { m.impl("f", VLLM_BOX(vllm::F)); }
    // for a dispatch key:
    STABLE_TORCH_LIBRARY_IMPL(_C, CompositeExplicitAutograd, m) { m.impl("f", ...); }

Every build compares the result with what its libraries register
(:mod:`vllm_build.checks.op_check`), so a registration that is written differently is an error.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from vllm_build.kernels import kernels_table
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.files import read_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vllm_build.kernels.build_plan import Plan
    from vllm_build.kernels.kernel_records import Kernel

#: Folder of the sources that register ops.
BINDINGS = "csrc/bindings"
#: Device → the dispatch key of its tensors, as in csrc/bindings/library.h. The device of a torch
#: for ROCm is also called CUDA.
KEYS: Mapping[str, str] = {"cpu": "CPU", "cuda": "CUDA", "rocm": "CUDA"}
#: Placeholder in the result of :func:`registrations` for the key of the kernel's device.
OF_DEVICE = ""
#: In place of a dispatch key: ops that a build defines and does not implement. Only the engine's
#: libraries have such ops.
NO_KEY = "none"

_BLOCK = re.compile(
    r"^(?:(?P<definition>STABLE_TORCH_LIBRARY_FRAGMENT)|(?P<device>VLLM_LIBRARY_IMPL)|STABLE_TORCH_LIBRARY_IMPL)"
    r"\((?P<namespace>\w+), (?:(?P<key>\w+), )?m\) \{(?P<body>[^\n]*\}$|\n.*?^\})",
    re.MULTILINE | re.DOTALL,
)
_DEFINITION = re.compile(r'm\.def\(\s*((?:"(?:[^"\\\n]|\\.)*"\s*)+)\)')
_LITERAL = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_IMPLEMENTATION = re.compile(r'm\.impl\(\s*"([\w.]+)"')
_SCHEMA = re.compile(r"[\w.]+\(.*\) -> \S.*")

#: Kernel → dispatch key → schemas.
OpTable = dict[str, dict[str, tuple[str, ...]]]


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}",
            expected="a source that registers ops",
            remedy="check out the tree again",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path}: {error}", expected="text in UTF-8", remedy="correct that file"
        ) from error


def _schema(path: Path, literals: str) -> str:
    try:
        text = "".join(json.loads(literal) for literal in _LITERAL.findall(literals))
    except json.JSONDecodeError:
        text = literals
    if not _SCHEMA.fullmatch(text):
        raise ConfigurationError(
            f"{path}: m.def({literals.strip()}) is not a schema",
            expected='m.def("name(Tensor x) -> Tensor")',
        )
    return text


def registrations(path: Path) -> dict[str, tuple[str, ...]]:
    """Dispatch key, or :data:`OF_DEVICE` → schemas that a source registers for it.

    Schemas include the namespace.

    Raises:
        ConfigurationError: the file cannot be read, contains a registration that this module cannot
            parse, or defines an op without implementing it.
    """
    text = _read(path)
    schemas: dict[str, str] = {}
    found: dict[str, list[str]] = {}
    read = 0
    blocks = list(_BLOCK.finditer(text))
    for block in blocks:
        if not block["definition"]:
            continue
        for literals in _DEFINITION.findall(block["body"]):
            schema = _schema(path, literals)
            schemas[f"{block['namespace']}::{schema.partition('(')[0]}"] = (
                f"{block['namespace']}::{schema}"
            )
            read += 1
    for block in blocks:
        if block["definition"]:
            continue
        key = OF_DEVICE if block["device"] else block["key"]
        for name in _IMPLEMENTATION.findall(block["body"]):
            full = f"{block['namespace']}::{name}"
            if full not in schemas:
                raise ConfigurationError(
                    f"{path}: {full} is implemented but not defined",
                    expected=f'm.def("{name}(...) -> ...") in the same file',
                )
            found.setdefault(key, []).append(schemas[full])
            read += 1
    if (written := len(re.findall(r"\bm\.(?:def|impl)\(", text))) != read:
        raise ConfigurationError(
            f"{path}: {written - read} of {written} calls of m.def and m.impl cannot be parsed",
            expected="the blocks that vllm_build/kernels/op_table.py describes",
        )
    if missing := set(schemas.values()).difference(*found.values()):
        raise ConfigurationError(
            f"{path}: {min(missing)} is defined but not implemented",
            expected="an m.impl for each m.def",
        )
    return {key: tuple(dict.fromkeys(listed)) for key, listed in found.items()}


def _of_kernel(
    root: Path, kernel: Kernel, seen: dict[Path, dict[str, tuple[str, ...]]]
) -> dict[str, tuple[str, ...]]:
    """Dispatch key → schemas of one kernel; ``seen`` caches files that several kernels share."""
    device_keys = {KEYS.get(device, device.upper()) for device in kernel.devices}
    table: dict[str, tuple[str, ...]] = {}
    for source in kernel.sources:
        path = root / source
        if not source.endswith(".cc"):
            continue
        if path not in seen:
            seen[path] = registrations(path)
        for key, schemas in seen[path].items():
            if key == OF_DEVICE and len(device_keys) > 1:
                raise ConfigurationError(
                    f"{kernels_table.TABLE}: the kernel {kernel.name!r} registers ops for "
                    f"{', '.join(sorted(device_keys))}",
                    expected="one record for the CPU and one for GPUs",
                )
            real = min(device_keys) if key == OF_DEVICE else key
            table[real] = tuple(dict.fromkeys((*table.get(real, ()), *schemas)))
    return table


def load(root: Path) -> OpTable:
    """The ops of every kernel of the table; a kernel without ops has an empty entry.

    Raises:
        ConfigurationError: the table of kernels or a source is missing or malformed.
    """
    seen: dict[Path, dict[str, tuple[str, ...]]] = {}
    return {
        kernel.name: _of_kernel(root, kernel, seen) for kernel in kernels_table.load(root).kernels
    }


def of_plan(table: OpTable, plan: Plan) -> Mapping[str, tuple[str, ...]]:
    """Dispatch key → schemas that the libraries of ``plan`` must register.

    Raises:
        ConfigurationError: a planned kernel is not in the table, so the plan is for another tree.
    """
    found: dict[str, tuple[str, ...]] = {}
    for extension in plan.extensions:
        for kernel in extension.kernels:
            if kernel.name not in table:
                raise ConfigurationError(
                    f"{kernels_table.TABLE} has no kernel {kernel.name!r}",
                    expected="the kernels of the plan",
                    remedy="run the build again",
                )
            for key, schemas in table[kernel.name].items():
                found[key] = (*found.get(key, ()), *schemas)
    return found
