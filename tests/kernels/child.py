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


def pytest(site: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """The exit status of pytest with the package in ``site``.

    Not captured: the last words of a process that a sanitizer or the emulation ends would go with the capture.
    """
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-o", "pythonpath="]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(HERE), "--confcutdir", str(HERE), *arguments]
    env = {**os.environ, "KERNEL_TEST_EXAMPLES": os.environ.get("KERNEL_TEST_EXAMPLES", "20"), **environment, "PYTHONPATH": str(site)}
    return subprocess.run(command, env=env, cwd=ROOT, check=False).returncode
