# SPDX-License-Identifier: Apache-2.0
"""Runs tests of this folder in a process of its own, against libraries that a special build left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent


def copy_package(site: Path) -> None:
    """The Python package, into a folder that its libraries are in or will be, with the version that an install would give it."""
    for source in (ROOT / "vllm").rglob("*.py"):
        target = site / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    version = (ROOT / "VERSION").read_text(encoding="utf-8").strip()
    (site / "vllm" / "_version.py").write_text(f'__version__ = "{version}"\n', encoding="utf-8")


def tests(arguments: Sequence[str], files: Sequence[str]) -> list[str]:
    """pytest's arguments, and ``files`` of this folder where they name none: pytest would look for tests all over the tree."""
    named = any(Path(word.partition("::")[0]).exists() for word in arguments)
    return [*arguments, *([] if named else [str(HERE / name) for name in files])]


def command(arguments: Sequence[str], device: str) -> list[str]:
    """The command line of pytest with this folder's tests, but for those of errors that are none on ``device``.

    Not captured: the last words of a process that a sanitizer or the emulation ends would go with
    the capture.
    """
    start = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "-q",
        "-s",
        "-p",
        "no:cacheprovider",
        "-o",
        "pythonpath=",
    ]
    start += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(HERE), "--confcutdir", str(HERE)]
    return [*start, *([] if device == "cpu" else ["-m", "not contents"]), *arguments]


def environment(device: str) -> dict[str, str]:
    """The variables of a process that tests on ``device``, a value of conftest's ``DEVICE``."""
    examples = os.environ.get("KERNEL_TEST_EXAMPLES", "20")
    return {**os.environ, "KERNEL_TEST_DEVICE": device, "KERNEL_TEST_EXAMPLES": examples}


def pytest(site: Path, arguments: Sequence[str], device: str, more: Mapping[str, str]) -> int:
    """The exit status of pytest with the package in ``site``."""
    env = {**environment(device), **more, "PYTHONPATH": str(site)}
    return subprocess.run(command(arguments, device), env=env, cwd=ROOT, check=False).returncode
