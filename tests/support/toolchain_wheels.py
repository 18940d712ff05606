# SPDX-License-Identifier: Apache-2.0
"""Writes a table of wheels into a source tree for tests, and the wheels."""

from __future__ import annotations

import shutil
import zipfile
from typing import TYPE_CHECKING

from vllm_build.toolchain import wheel_recipe, wheel_table
from vllm_build.util import paths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

WHEEL = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_table(root: Path, text: str) -> None:
    """Write ``toolchain/wheels.toml``, this project's template and its helper into ``root``."""
    (root / wheel_table.FOLDER).mkdir(parents=True, exist_ok=True)
    for path in (
        paths.source_root() / wheel_table.FOLDER / wheel_table.TEMPLATE,
        wheel_recipe.helper(paths.source_root()),
    ):
        target = root / path.relative_to(paths.source_root())
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    (root / wheel_table.TABLE).write_text(text, encoding="utf-8")


def write_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    headers: Sequence[str] = ("License-Expression: MIT",),
    files: Mapping[str, str] | None = None,
    about: Mapping[str, str] | None = None,
    tag: str = "py3-none-any",
) -> Path:
    """Write a wheel.

    Args:
        folder: the folder for the file.
        name: the name of the distribution.
        version: the version of the distribution.
        headers: lines of METADATA in addition to name and version.
        files: the files outside of dist-info; default: one module with the distribution's name.
        about: the files in dist-info in addition to METADATA and WHEEL; default: a license.
        tag: the tag in the file name.
    """
    stem = name.replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    path = folder / f"{stem}-{version}-{tag}.whl"
    metadata = "\n".join(
        ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *headers, ""]
    )
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in ({f"{stem}.py": ""} if files is None else files).items():
            archive.writestr(member, text)
        for member, text in ({"licenses/LICENSE": "free\n"} if about is None else about).items():
            archive.writestr(f"{info}/{member}", text)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(
            f"{info}/WHEEL", WHEEL if tag.endswith("none-any") else WHEEL.replace("true", "false")
        )
        archive.writestr(f"{info}/RECORD", "")
    return path
