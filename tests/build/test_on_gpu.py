# SPDX-License-Identifier: Apache-2.0
"""The messages and programs of `make gpu-tests` and `make gpu-sanitize`.

A file of three lines replaces torch, with or without a GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from vllm_build.util import paths

if TYPE_CHECKING:
    from pathlib import Path

ROOT = paths.source_root()
TORCH = "__version__ = '2.13.0'\nclass cuda:\n    is_available = staticmethod(lambda: {found})\n"
#: Records its variables and arguments, and fails for the given tool.
CHECKER = (
    '#!/bin/sh\necho "caching=$PYTORCH_NO_CUDA_MEMORY_CACHING device=$KERNEL_TEST_DEVICE $*" '
    '>> "$STARTED"\ntest "$2" != "$FAILING"\n'
)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """The folder that is the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def on_gpu(
    programs: Path, torch: str, *arguments: str, failing: str = ""
) -> subprocess.CompletedProcess[str]:
    (programs.parent / "torch.py").write_text(torch, encoding="utf-8")
    env = {
        "PATH": str(programs),
        "PYTHONPATH": str(programs.parent),
        "STARTED": str(programs.parent / "started"),
        "FAILING": failing,
    }
    env |= {
        name: os.environ[name] for name in ("HOME", "COVERAGE_PROCESS_CONFIG") if name in os.environ
    }
    command = [sys.executable, str(ROOT / "tests" / "kernels" / "on_gpu.py"), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def checker(programs: Path) -> Path:
    path = programs / "compute-sanitizer"
    path.write_text(CHECKER, encoding="utf-8")
    path.chmod(0o755)
    return programs.parent / "started"


def test_without_torch_or_a_gpu(programs: Path) -> None:
    done = on_gpu(programs, "raise ModuleNotFoundError('torch')\n")
    assert (done.returncode, "cannot import torch (torch)" in done.stderr) == (1, True)
    done = on_gpu(programs, TORCH.format(found=False))
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        "error: torch 2.13.0 sees no GPU\n  expected: a machine with a GPU, its driver"
        in done.stderr
    )


def test_without_the_checker(programs: Path) -> None:
    done = on_gpu(programs, TORCH.format(found=True), "--compute-sanitizer")
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: there is no compute-sanitizer" in done.stderr
    assert "pip install nvidia-cuda-sanitizer-api" in done.stderr


def test_every_tool_checks_the_small_cases(programs: Path, checker: Path) -> None:
    done = on_gpu(programs, TORCH.format(found=True), "--compute-sanitizer")
    assert done.returncode == 0, done.stderr
    lines = checker.read_text(encoding="utf-8").splitlines()
    assert [line.split()[3] for line in lines] == ["memcheck", "racecheck", "synccheck"]
    for line in lines:
        assert line.startswith("caching=1 device=cuda --tool ")
        assert "--error-exitcode 1 " in line
        assert "test_bench_cases.py" in line
        assert "test_norm.py" not in line


def test_what_a_tool_finds_fails_the_run_and_the_others_run_all_the_same(
    programs: Path, checker: Path
) -> None:
    done = on_gpu(programs, TORCH.format(found=True), "--compute-sanitizer", failing="memcheck")
    assert (done.returncode, "compute-sanitizer: memcheck found errors" in done.stdout) == (1, True)
    assert len(checker.read_text(encoding="utf-8").splitlines()) == 3


def test_a_tool_and_tests_can_be_chosen(programs: Path, checker: Path) -> None:
    done = on_gpu(
        programs,
        TORCH.format(found=True),
        "--compute-sanitizer",
        "--tool",
        "racecheck",
        "-k",
        "rms_norm",
    )
    assert done.returncode == 0, done.stderr
    (line,) = checker.read_text(encoding="utf-8").splitlines()
    assert "--tool racecheck" in line
    assert "-m not contents -k rms_norm /" in line, "pytest's options come before the test files"
    tests = ROOT / "tests" / "kernels" / "test_norm.py"
    assert (
        on_gpu(
            programs,
            TORCH.format(found=True),
            "--compute-sanitizer",
            "--tool",
            "memcheck",
            f"{tests}::test_x",
        ).returncode
        == 0
    )
    assert (
        checker.read_text(encoding="utf-8")
        .splitlines()[-1]
        .endswith(f"-m not contents {tests}::test_x")
    )
