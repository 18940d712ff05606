# SPDX-License-Identifier: Apache-2.0
"""Runs of ``vllm-build package cpu``, the command that users type.

A test module imports the fixtures; their names there have no suffix ``_fixture``.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vllm_build.util import paths

ROOT = paths.source_root()
#: ``make package`` writes here too, and the tests reuse its packages.
OUTPUT = ROOT / "output"


@dataclass(frozen=True)
class Done:
    """One run of ``vllm-build package cpu``."""

    result: dict[str, Any]
    log: str

    @property
    def kernels(self) -> str:
        (path,) = (
            p["path"]
            for p in self.result["packages"]
            if Path(p["path"]).name.startswith("vllm-kernels-")
        )
        return str(path)


def vllm_build(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vllm_build", *arguments]
    return subprocess.run(
        command, cwd=tree, env=environ(tree), capture_output=True, text=True, check=False
    )


def environ(tree: Path) -> dict[str, str]:
    kept = (
        "PATH",
        "HOME",
        "CCACHE_DIR",
        "VLLM_BUILD_CACHE",
        "XDG_CACHE_HOME",
        "MAX_JOBS",
        "COVERAGE_PROCESS_CONFIG",
    )
    return {
        **{key: value for key in kept if (value := os.environ.get(key))},
        "PYTHONPATH": str(tree / "scripts"),
    }


def build(tree: Path, output: Path) -> Done:
    done = vllm_build(tree, "package", "cpu", "--json", "--output", str(output))
    assert done.returncode == 0, done.stderr[-6000:]
    return Done(json.loads(done.stdout), done.stderr)


@functools.cache
def _built() -> Done:
    return build(ROOT, OUTPUT)


@pytest.fixture(scope="session", name="output")
def output_fixture() -> Path:
    return OUTPUT


@pytest.fixture(scope="session", name="built")
def built_fixture() -> Done:
    """The packages of this tree, built once for all modules."""
    return _built()
