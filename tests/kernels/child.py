# SPDX-License-Identifier: Apache-2.0
"""Runs tests of this folder in another process, with the libraries of a special build."""

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
    """Copy the thin face into the folder of the libraries, with an install's version."""
    for source in (ROOT / "vllm").rglob("*.py"):
        target = site / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    version = (ROOT / "VERSION").read_text(encoding="utf-8").strip()
    (site / "vllm" / "_version.py").write_text(f'__version__ = "{version}"\n', encoding="utf-8")


def tests(arguments: Sequence[str], files: Sequence[str]) -> list[str]:
    """Return pytest's arguments, with ``files`` of this folder if they name no tests.

    Without files, pytest would look for tests in the whole tree.
    """
    named = any(Path(word.partition("::")[0]).exists() for word in arguments)
    return [*arguments, *([] if named else [str(HERE / name) for name in files])]


def command(arguments: Sequence[str], device: str) -> list[str]:
    """The pytest command line for this folder's tests.

    Tests of errors that ``device`` does not raise are left out. Output is not captured: if a
    sanitizer or the emulation ends the process, its last message would be lost with the capture.
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
    """The environment of a process that tests ``device``, a value of conftest's ``DEVICE``."""
    examples = os.environ.get("KERNEL_TEST_EXAMPLES", "20")
    return {**os.environ, "KERNEL_TEST_DEVICE": device, "KERNEL_TEST_EXAMPLES": examples}


def pytest(site: Path, arguments: Sequence[str], device: str, more: Mapping[str, str]) -> int:
    """Run pytest with the package in ``site`` and return its exit status."""
    env = {**environment(device), **more, "PYTHONPATH": str(site)}
    return subprocess.run(command(arguments, device), env=env, cwd=ROOT, check=False).returncode
