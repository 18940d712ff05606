# SPDX-License-Identifier: Apache-2.0
"""What our code asks HIP's runtime for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from vllm_build.util import paths

if TYPE_CHECKING:
    from pathlib import Path

ROOT = paths.source_root()
CSRC = ROOT / "csrc"
FORWARDS = CSRC / "core" / "gpu" / "hip" / "runtime_calls.cc"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    compiler = next((name for name in names if name and shutil.which(name)), None)
    if compiler is None:
        pytest.skip(f"no compiler: {', '.join(names[1:])} are not on PATH")
    fake, built = ROOT / "tests" / "data" / "fake_hip", tmp_path_factory.mktemp("hip") / "program"
    command = [compiler, "-std=c++17", "-O0", "-D__HIPCC__", "-DVLLM_DEVICE_ROCM"]
    command += [f"-I{fake}", f"-I{CSRC}", "-x", "c++", str(CSRC / "core/gpu/shared_memory.cu")]
    command += [str(fake / "shared_memory.cc"), "-o", str(built)]
    subprocess.run(command, check=True)
    return built


def run(program: Path, *arguments: str) -> list[str]:
    return subprocess.run(
        [program, *arguments], check=True, capture_output=True, text=True
    ).stdout.splitlines()


def test_shared_memory_is_not_cached(program: Path) -> None:
    """hipDeviceMallocUncached is 3."""
    assert run(program) == [
        "hipExtMallocWithFlags 1000 3",
        "hipMemset 0 1000",
        "hipDeviceSynchronize",
        "hipIpcGetMemHandle",
        "hipFree",
    ]


def test_no_memory_is_an_error(program: Path) -> None:
    assert run(program, "full") == [
        "hipExtMallocWithFlags 1000 3",
        "error: allocating shared memory: out of memory",
    ]


def test_every_forward_has_a_caller() -> None:
    """Those with underscores are called by code that the compiler makes."""
    forwards = re.findall(r"^VLLM_HIP_FORWARD\((hip\w+),", FORWARDS.read_text(), re.MULTILINE)
    assert len(forwards) > 10
    others = "".join(
        path.read_text(encoding="utf-8")
        for path in sorted(CSRC.rglob("*.*"))
        if path.suffix in {".cc", ".cu", ".h"} and path != FORWARDS
    )
    called = {
        *re.findall(r"\b(hip[A-Z]\w+)\(", others),
        *(f"hip{name}" for name in re.findall(r"VLLM_GPU_RUNTIME\((\w+)\)\(", others)),
    }
    assert sorted(set(forwards) - called) == []
