# SPDX-License-Identifier: Apache-2.0
"""Compares the schemas of our ops with those in the engine's own C++ sources, by device.

The engine's Python calls an op by position and by keyword, as upstream's library spells it. An op
of ours that is spelled differently would be found by name, and fail when it is called. Upstream's
spelling is in the ``def`` calls of the C++ sources in the source distribution. They are read from
the archive, because the cache has only the Python modules. FlashAttention and FlashMLA are not in
the archive.
"""

from __future__ import annotations

import re
import tarfile
from collections import defaultdict
from typing import TYPE_CHECKING

from vllm_build.kernels import kernels_table, op_table
from vllm_build.sources import op_registrations
from vllm_build.util.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

#: Folder of the C++ sources in the archive → the devices whose libraries they are compiled for.
_FOLDERS = {"cpu": ("cpu",), "rocm": ("rocm",)}
_OTHERS = ("cuda", "rocm")
#: The devices whose libraries these sources make.
DEVICES = ("cpu", "cuda", "rocm")
#: Folder → the library that CMake names ``TORCH_EXTENSION_NAME`` there.
_LIBRARIES = {"moe": "_moe_C", "rocm": "_rocm_C"}
_SUFFIXES = (".cc", ".cpp", ".cu")
#: Far more than the largest of these sources.
_MAX_BYTES = 16 << 20
_ALIAS = re.compile(r"\((?:\$[0-9]+|[a-z][0-9]*)(!?)(?: ?-> ?[^)]*)?\)")
_NUMBER = re.compile(r"=(-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)(?=[,)])")

#: Device → qualified name of an op → its schemas, one for each branch of the preprocessor.
Schemas = dict[str, dict[str, frozenset[str]]]


def spell(schema: str) -> str:
    """A schema in one spelling: types, argument names and defaults that mean the same are equal."""
    text = re.sub(r"\s+", " ", schema.strip()).replace("SymInt", "int")
    text = re.sub(r"\( | (?=[,)])", lambda found: found[0].strip(), text)
    text = re.sub(r" ?-> ?", " -> ", re.sub(r",(?=\S)", ", ", text))
    text = _ALIAS.sub(r"\1", text)
    return _NUMBER.sub(lambda found: f"={float(found[1])!r}", text)


def definitions(text: str, folder: str) -> Iterator[str]:
    """The spelled schemas that a C++ source defines, with namespaces.

    Args:
        text: the source.
        folder: the first folder of its path below ``csrc``; empty directly in it.
    """
    for schema in op_registrations.read(text, _LIBRARIES.get(folder, "_C")).schemas:
        space, _, rest = schema.partition("::")
        yield f"{space}::{spell(rest)}"


def of_archive(archive: Path) -> Schemas:
    """The schemas of upstream's ops.

    Args:
        archive: the engine's source distribution.

    Raises:
        IntegrityError: it cannot be read, or has no schemas where they were.
    """
    found: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                parts = member.name.split("/")
                if (
                    parts[1:2] != ["csrc"]
                    or not member.isreg()
                    or not member.name.endswith(_SUFFIXES)
                    or member.size > _MAX_BYTES
                ):
                    continue
                stream = tar.extractfile(member)
                text = stream.read().decode(errors="replace") if stream else ""
                folder = parts[2] if len(parts) > 3 else ""  # noqa: PLR2004 - a folder below csrc
                for schema in definitions(text, folder):
                    for device in _FOLDERS.get(folder, _OTHERS):
                        found[device][schema.partition("(")[0]].add(schema)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise IntegrityError(
            f"{archive} cannot be read: {error}", expected="the locked source distribution"
        ) from error
    if missing := sorted(set(DEVICES) - set(found)):
        raise IntegrityError(
            f"{archive.name} defines no ops for {', '.join(missing)}",
            expected="m.def(…) in csrc/, csrc/cpu/ and csrc/rocm/",
            remedy="upstream moved them: change vllm_build/engine/op_schemas.py",
        )
    return {
        device: {name: frozenset(schemas) for name, schemas in sorted(ops.items())}
        for device, ops in found.items()
    }


def registered(root: Path) -> dict[str, dict[str, str]]:
    """Device → qualified name → the spelled schema of each op of ours.

    Raises:
        ConfigurationError: the table of kernels or a source is malformed.
    """
    table = op_table.load(root)
    found: dict[str, dict[str, str]] = {}
    for kernel in kernels_table.load(root).kernels:
        for schema in {s for schemas in table[kernel.name].values() for s in schemas}:
            space, _, rest = schema.partition("::")
            name = f"{space}::{rest.partition('(')[0]}"
            for device in kernel.devices:
                found.setdefault(device, {})[name] = f"{space}::{spell(rest)}"
    return found


def differences(
    ours: Mapping[str, Mapping[str, str]], theirs: Schemas, explained: Mapping[str, frozenset[str]]
) -> list[str]:
    """Ops that both have and that are spelled differently, and explanations without a difference.

    Args:
        ours: result of :func:`registered`.
        theirs: result of :func:`of_archive`.
        explained: device → ops that may differ, see :mod:`vllm_build.engine.op_calls`.
    """
    found = []
    for device in DEVICES:
        mine, upstream = ours.get(device, {}), theirs.get(device, {})
        allowed = explained.get(device, frozenset())
        differing = {
            name
            for name, schema in mine.items()
            if name in upstream and schema not in upstream[name]
        }
        found += [
            f"{device}: {mine[name]}, but the engine's is {' or '.join(sorted(upstream[name]))}"
            for name in sorted(differing - allowed)
        ]
        found += [
            f"{device}: the schema of {name} is listed as different, but it is not"
            for name in sorted(allowed - differing)
        ]
    return found


def unknown(ours: Mapping[str, Mapping[str, str]], theirs: Schemas) -> list[str]:
    """Ops of ours in upstream's namespaces whose schema the archive does not have."""
    known = {name for ops in theirs.values() for name in ops}
    return sorted({name for ops in ours.values() for name in ops} - known)
