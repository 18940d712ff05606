# SPDX-License-Identifier: Apache-2.0
"""Writes the recipe of a wheel: a template filled in from the wheel and its table entry."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

from vllm_build.toolchain import toolchain_lock, wheel_metadata, wheel_requirements, wheel_table
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.files import disk_errors, read_text, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vllm_build.toolchain.toolchain_lock import LockedFile
    from vllm_build.toolchain.wheel_table import Target

#: Tests of one package, as a YAML list. The files that it names are in the same folder.
TESTS = "tests.yaml"
#: The folder with license texts for a wheel that has none.
LICENSES = "licenses"
_HELPER = "toolchain/recipes/common/install_wheel.py"
_SLOT = re.compile(r"@([a-z_]+)@")
_LINE = re.compile(r"^.*@([a-z_]+)@.*\n", re.MULTILINE)


def helper(root: Path) -> Path:
    """The script that installs the wheel."""
    return root / _HELPER


def _prefix(target: Target) -> str:
    """The beginning of the build string, which ends with the digest."""
    return {
        wheel_table.PURE: "pyh",
        wheel_table.ABI3: "abi3h",
        wheel_table.COMPILED: f"py{target.series.replace('.', '')}h",
    }[target.wheel.kind]


def _plain(text: str) -> str:
    """Make ``text`` one line without the templates of rattler-build."""
    return " ".join(
        "".join(c if c.isprintable() else " " for c in text).replace("${{", "$ {{").split()
    )


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" if line else "\n" for line in text.splitlines())


def _check(target: Target, file: LockedFile, metadata: wheel_metadata.Metadata, own: Path) -> str:
    """Check that the template fits a wheel, and return the wheel's license."""
    wheel = target.wheel
    what = f"{wheel.where}: {file.filename}"
    if metadata.pure != (wheel.kind == wheel_table.PURE):
        raise ConfigurationError(
            f"{what} is {'' if metadata.pure else 'not '}pure Python",
            expected="a wheel for any platform"
            if wheel.kind == wheel_table.PURE
            else "a compiled wheel",
            remedy=f"give {wheel.name} the right `kind`, then {toolchain_lock.UPDATE_COMMAND}",
        )
    if wheel.kind == wheel_table.ABI3 and metadata.series:
        raise ConfigurationError(
            f"{what} is for Python {metadata.series} alone",
            expected="a wheel for the stable ABI",
            remedy=f'kind = "{wheel_table.COMPILED}" for {wheel.name}, then '
            f"{toolchain_lock.UPDATE_COMMAND}",
        )
    if wheel_table.locked_wheel(target, toolchain_lock.Lock.of([file])) is None:
        raise ConfigurationError(
            f"{wheel.where}: the lock has {file.version}",
            expected=wheel.requirement,
            remedy=f"{toolchain_lock.UPDATE_COMMAND} {wheel.name}",
        )
    if (
        wheel_requirements.relevant(metadata.requires, wheel.extras) != file.requires
        or metadata.requires_python != file.requires_python
    ):
        raise ConfigurationError(
            f"{what} does not have the requirements that the lock lists",
            remedy=f"{toolchain_lock.UPDATE_COMMAND} {wheel.name}",
        )
    if not (wheel.license or metadata.license):
        raise ConfigurationError(
            f"{what} names no SPDX license",
            expected='license = "…"',
            remedy=f"add it to the line of {wheel.name}",
        )
    if not metadata.has_license and not any((own / LICENSES).glob("*")):
        raise ConfigurationError(
            f"{what} contains no license text",
            expected=f"a file in {own / LICENSES}",
            remedy="add the text there",
        )
    return wheel.license or metadata.license


def write(
    root: Path, target: Target, file: LockedFile, downloaded: Path, run: Sequence[str], work: Path
) -> Path:
    """Write the recipe of one package, with the files that it reads, and return its path.

    Args:
        root: the source tree.
        target: the build.
        file: the locked file.
        downloaded: the path of the wheel.
        run: the run requirements of the package.
        work: an existing folder, in which a folder for the recipe is made.

    Raises:
        ConfigurationError: the wheel is of another kind than its line says, differs from the lock,
            names no license or contains no license text.
        IntegrityError: the file is not a wheel.
    """
    wheel = target.wheel
    metadata, own = wheel_metadata.read(downloaded), root / wheel_table.FOLDER / wheel.name
    license_ = _check(target, file, metadata, own)
    values: dict[str, object] = {
        "name": wheel.name,
        "wheel": file.filename,
        "prefix": _prefix(target),
        # Without `noarch`, a package is for the platform. The installer still chooses the folder of
        # its modules and writes its entry points, as CEP 20 says.
        "noarch": "python" if wheel.kind == wheel_table.PURE else "",
        "any_python": wheel.kind != wheel_table.PURE,
        "entry_points": list(metadata.programs),
        "run": list(run),
        "modules": list(metadata.modules),
        "homepage": _plain(metadata.homepage),
        "license": license_,
        "summary": _plain(metadata.summary),
    }
    text = read_text(root / wheel_table.FOLDER / wheel_table.TEMPLATE)
    # JSON is valid YAML. The line of an empty string is removed.
    text = _LINE.sub(lambda line: "" if values[line[1]] == "" else line[0], text)
    filled = _SLOT.sub(lambda slot: json.dumps(values[slot[1]], ensure_ascii=False), text)
    if (own / TESTS).is_file():
        filled = filled.replace("\ntests:\n", "\ntests:\n" + _indented(read_text(own / TESTS)), 1)
    folder = work / wheel.name
    with disk_errors(folder):
        if own.is_dir():
            shutil.copytree(own, folder)
        folder.mkdir(exist_ok=True)
        shutil.copyfile(helper(root), folder / helper(root).name)
        write_text(folder / wheel_table.TEMPLATE, filled)
    return folder / wheel_table.TEMPLATE
