# SPDX-License-Identifier: Apache-2.0
"""Writes a table of wheels into a source tree for tests, and the wheels."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

from vllm_build.toolchain import wheel_recipe, wheel_resolver, wheel_table
from vllm_build.toolchain.toolchain_lock import Lock, LockedFile
from vllm_build.toolchain.wheel_resolver import Maker, Required
from vllm_build.util import paths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: Makers of packages that a table of wheels does not make, by package.
MAKERS = {
    "numpy": [
        Maker("numpy-3.11", "2.4.6", python="3.11"),
        Maker("numpy-3.13", "2.4.6", python="3.13"),
    ],
    "python-gil": [Maker("python-gil-3.11", "3.11", python="3.11")],
    "pytorch": [Maker("pytorch-3.11", "2.13.0", python="3.11")],
}
PYTHONS = ["3.11.2", "3.13.5"]
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


def parse(tmp_path: Path, text: str) -> wheel_table.Table:
    """The table of a text."""
    return wheel_table.parse(text, tmp_path / "wheels.toml")


def locked(
    build: str, version: str, *requires: str, python: str = ">=3.9", name: str = ""
) -> LockedFile:
    """A locked pure wheel with these requirements."""
    file = f"{build}-{version}-py3-none-any.whl"
    return LockedFile(
        build,
        0,
        "pypi",
        name or build,
        version,
        file,
        "0" * 64,
        requires=requires,
        requires_python=python,
    )


def require(
    tmp_path: Path,
    lines: str,
    *files: LockedFile,
    pythons: list[str] = PYTHONS,
    head: str = "",
) -> dict[str, Required]:
    """What the builds of the table's lines need, with these locked files."""
    table = parse(tmp_path, f'{head}[wheels]\n{lines}\n[names]\ntorch = "pytorch"\n')
    return wheel_resolver.require(table, Lock.of(files), MAKERS, pythons)


def compiled(build: str, tag: str, *requires: str) -> LockedFile:
    """A locked wheel with a tag."""
    return replace(locked(build, "1", *requires), filename=f"a-1-{tag}.whl")
