# SPDX-License-Identifier: Apache-2.0
"""Writes ``build_info.json``: the content, the target and the sources of a binary component."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vllm_build.util.files import sha256_of, write_text
from vllm_build.util.redaction import redact_document

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 1


@dataclass(frozen=True)
class BuiltExtension:
    """One extension library: its name, file, sha256, size in bytes, and the kernels in it."""

    name: str
    file: str
    sha256: str
    size: int
    kernels: tuple[str, ...]


def describe(name: str, path: Path, root: Path, kernels: tuple[str, ...]) -> BuiltExtension:
    """Describe the library at ``path``; its file name is relative to ``root``."""
    return BuiltExtension(
        name, path.relative_to(root).as_posix(), sha256_of(path), path.stat().st_size, kernels
    )


def compiler_of(build: Path) -> dict[str, str]:
    """Identity and version of the C++ compiler that CMake recorded in the build directory."""
    for path in sorted((build / "CMakeFiles").glob("*/CMakeCXXCompiler.cmake")):
        text = path.read_text(encoding="utf-8")
        found = {
            key: re.search(rf'set\({name} "([^"]*)"\)', text)
            for key, name in (
                ("id", "CMAKE_CXX_COMPILER_ID"),
                ("version", "CMAKE_CXX_COMPILER_VERSION"),
            )
        }
        return {key: match.group(1) for key, match in found.items() if match}
    return {}


def write(path: Path, document: dict[str, Any], extensions: tuple[BuiltExtension, ...]) -> None:
    """Write the document with its schema number and extensions.

    The keys are sorted, so that equal builds write equal bytes.
    """
    document = {
        "schema": SCHEMA,
        **document,
        "extensions": [asdict(extension) for extension in extensions],
    }
    write_text(path, json.dumps(redact_document(document), indent=2, sort_keys=True) + "\n")
