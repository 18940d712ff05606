# SPDX-License-Identifier: Apache-2.0
"""Finds modules that the engine imports and that are missing.

Upstream's build compiles libraries, and copies Python files of other projects into the package.
Neither is in the source distribution. The engine does without some of them, and fails where it
needs others; only a person can tell. ``third_party/engine.toml`` therefore lists them, with the
reason.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(vllm(?:\.\w+)*)[ \t]+import\b|import[ \t]+(vllm(?:\.\w+)+))",
    re.MULTILINE,
)


def imported(package: Path) -> dict[str, str]:
    """Module → the first file that imports it, relative to the package.

    Args:
        package: the folder of the engine's Python package.
    """
    found: dict[str, str] = {}
    for path in sorted(package.rglob("*.py")):
        for names in _IMPORT.findall(path.read_text("utf-8", errors="replace")):
            found.setdefault(names[0] or names[1], path.relative_to(package).as_posix())
    return dict(sorted(found.items()))


def _modules(files: Collection[str]) -> set[str]:
    """The modules of files, and every folder above one."""
    found = set()
    for name in files:
        parts = name.split("/")
        found |= {".".join(parts[:depth]) for depth in range(1, len(parts))}
        if name.endswith(".py"):
            found.add(name.removesuffix(".py").replace("/", "."))
    return found


def differences(
    imports: Mapping[str, str],
    files: Collection[str],
    libraries: Collection[str],
    absent: Mapping[str, str],
) -> list[str]:
    """Imports that the table does not explain, and entries of the table without one.

    Args:
        imports: result of :func:`imported`.
        files: the engine's files and ours.
        libraries: the places of our libraries without their suffix.
        absent: module → the reason why it is missing; also for the modules below it.
    """
    present = _modules(files) | {place.replace("/", ".") for place in libraries}
    missing = {name: file for name, file in imports.items() if name not in present}
    explained = {
        name: entry
        for name in missing
        for entry in absent
        if name == entry or name.startswith(f"{entry}.")
    }
    found = [
        f"{file} imports {name}, which neither the engine nor this tree has"
        for name, file in missing.items()
        if name not in explained
    ]
    return found + [
        f"{entry} is in the list 'absent', but no import of it is missing"
        for entry in sorted(set(absent) - set(explained.values()))
    ]
