# SPDX-License-Identifier: Apache-2.0
"""What a release of the engine means for this tree: files, ops, requirements and licenses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vllm_build.engine import engine_requirements, faces, op_calls
from vllm_build.util.files import read_text

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.engine.engine_source import Engine

_LICENSE = re.compile(r"SPDX-License-Identifier:\s*([^\s#*/]+)")
#: Licenses that the lock names for the engine.
KNOWN_LICENSES = frozenset({"Apache-2.0", "BSD-3-Clause", "MIT"})


def requirement_differences(root: Path, engine: Engine) -> list[str]:
    """How the engine's requirements differ from our table, one line each."""
    text = read_text(engine.folder / "requirements" / "common.txt")
    return engine_requirements.differences(
        engine_requirements.read(root), engine_requirements.of_upstream(text)
    )


def license_differences(root: Path, engine: Engine) -> list[str]:
    """License texts of the engine that the tree lacks, and unknown licenses of its files."""
    folder = root / "third_party" / "licenses" / "vllm"
    ours = {path.read_bytes() for path in folder.iterdir()}
    found = [
        f"{path.relative_to(engine.folder)} is in none of the texts in {folder.relative_to(root)}"
        for path in sorted((engine.folder / "LICENSE", *engine.package.rglob("LICENSE*")))
        if path.read_bytes() not in ours
    ]
    named: dict[str, str] = {}
    for name in faces.files_below(engine.package):
        if name.endswith((".py", ".cu", ".cpp", ".sh")):
            head = read_text(engine.package / name)[:2000]
            for license_ in _LICENSE.findall(head):
                named.setdefault(license_, name)
    found += [
        f"{name} has the license {license_}"
        for license_, name in sorted(named.items())
        if license_ not in KNOWN_LICENSES
    ]
    return found


def review(root: Path, engine: Engine) -> dict[str, list[str]]:
    """Every difference that a person must look at, by subject.

    Raises:
        ConfigurationError: one of the tables is malformed.
    """
    theirs = [f"vllm/{name}" for name in faces.files_below(engine.package)]
    return {
        "files": faces.clashes(faces.python_files(root), theirs, faces.read(root)),
        "ops": op_calls.unexplained(
            op_calls.calls(engine.package), op_calls.registered(root), op_calls.read(root)
        ),
        "requirements": requirement_differences(root, engine),
        "licenses": license_differences(root, engine),
    }
