# SPDX-License-Identifier: Apache-2.0
"""The recipe of a package that is a pure wheel: the one template, filled in with what the wheel and its line of the table say."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

from vllm_build.toolchain import toolchain_lock, wheel_metadata, wheel_table
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.files import disk_errors, read_text, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vllm_build.toolchain.toolchain_lock import LockedFile
    from vllm_build.toolchain.wheel_table import Wheel

#: Tests of one package, a YAML list; a file that they name lies beside it.
TESTS = "tests.yaml"
#: License texts for a wheel without one.
LICENSES = "licenses"
_HELPER = "toolchain/recipes/common/install_wheel.py"
_SLOT = re.compile(r"@([a-z_]+)@")
_HOMEPAGE = re.compile(r"^.*@homepage@\n", re.MULTILINE)


def helper(root: Path) -> Path:
    """The program that installs the wheel."""
    return root / _HELPER


def _plain(text: str) -> str:
    """One line that neither YAML nor rattler-build's templates read as more than text."""
    return " ".join(
        "".join(c if c.isprintable() else " " for c in text).replace("${{", "$ {{").split()
    )


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" if line else "\n" for line in text.splitlines())


def _check(wheel: Wheel, file: LockedFile, metadata: wheel_metadata.Metadata, own: Path) -> str:
    """Refuse a wheel that the template does not fit; return its license."""
    what = f"{wheel.where}: {file.filename}"
    if not metadata.pure:
        raise ConfigurationError(
            f"{what} is not pure Python",
            expected="a wheel for any platform",
            remedy="write a recipe for it",
        )
    if wheel_table.locked_wheel(wheel, toolchain_lock.Lock.of([file])) is None:
        raise ConfigurationError(
            f"{wheel.where}: the lock has {file.version}",
            expected=wheel.requirement,
            remedy=f"{toolchain_lock.UPDATE_COMMAND} {wheel.name}",
        )
    if (
        wheel_metadata.relevant(metadata.requires, wheel.extras) != file.requires
        or metadata.requires_python != file.requires_python
    ):
        raise ConfigurationError(
            f"{what} requires other packages than the lock "
            "says", remedy=f"{toolchain_lock.UPDATE_COMMAND} {wheel.name}"
        )  # fmt: skip
    if not (wheel.license or metadata.license):
        raise ConfigurationError(
            f"{what} names no license that SPDX knows",
            expected='license = "…"',
            remedy=f"add it for {wheel.name}",
        )
    if not metadata.has_license and not any((own / LICENSES).glob("*")):
        raise ConfigurationError(
            f"{what} holds no license text",
            expected=f"a file in {own / LICENSES}",
            remedy="add the text there",
        )
    return wheel.license or metadata.license


def write(
    root: Path, wheel: Wheel, file: LockedFile, downloaded: Path, run: Sequence[str], work: Path
) -> Path:
    """Write the recipe of one package into a folder of its own below ``work``, with all that it reads; return the recipe.

    Args:
        root: the source tree.
        wheel: its line of the table.
        file: its entry in the lock.
        downloaded: the wheel.
        run: what the package requires.
        work: an existing folder.

    Raises:
        ConfigurationError: the wheel is not pure, is not what the lock says, names no license or
            holds no license text.
        IntegrityError: it is no wheel.
    """
    metadata, own = wheel_metadata.read(downloaded), root / wheel_table.FOLDER / wheel.name
    license_ = _check(wheel, file, metadata, own)
    values: dict[str, object] = {
        "name": wheel.name,
        "wheel": file.filename,
        "entry_points": list(metadata.programs),
        "run": list(run),
        "modules": list(metadata.modules),
        "homepage": _plain(metadata.homepage),
        "license": license_,
        "summary": _plain(metadata.summary),
    }
    text = read_text(root / wheel_table.FOLDER / wheel_table.TEMPLATE)
    # JSON is YAML. An empty address is no address, so its line goes.
    text = text if values["homepage"] else _HOMEPAGE.sub("", text)
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
