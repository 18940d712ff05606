# SPDX-License-Identifier: Apache-2.0
"""Runs the build front ends pip, build and uv with a copy of the tree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from trees import copy_tree

if TYPE_CHECKING:
    from pathlib import Path

UV = ("-m", "uv")
#: uv takes the build requirements from the interpreter that it installs for; this test's has them.
UV_PIP = (*UV, "pip", "install", "--no-build-isolation", "--no-deps", "--offline")


def copy_release(target: Path) -> Path:
    """Copy the tree as in a tarball: without git, and without the metadata of an sdist."""
    return copy_tree(target, "tests", symlinks=True)


def run_module(folder: Path, *words: object, device: str = "empty", **variables: str) -> str:
    """Run a module of this interpreter in ``folder``, without this machine's configuration.

    Fails the test if the module fails.

    Returns:
        The output.
    """
    kept = {
        name: os.environ[name]
        for name in ("PATH", "LANG", "COVERAGE_PROCESS_CONFIG")
        if name in os.environ
    }
    env = {
        **kept,
        "HOME": str(folder / "home"),
        "VLLM_TARGET_DEVICE": device,
        "PIP_CONFIG_FILE": os.devnull,
        **variables,
    }
    env |= {"UV_CACHE_DIR": str(folder / "uv"), "UV_NO_CONFIG": "1"}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(
        command,
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}"
    return done.stdout


def installed(site: Path) -> tuple[str, str]:
    """The version in the metadata, and the version that the package reports."""
    (info,) = site.glob("vllm-*.dist-info")
    said = re.search(
        r'__version__ = "(.*)"', (site / "vllm" / "_version.py").read_text(encoding="utf-8")
    )
    assert said is not None
    return info.name.removeprefix("vllm-").removesuffix(".dist-info"), said[1]
