# SPDX-License-Identifier: Apache-2.0
"""The emulation of AMD's waves, and what core/gpu makes of them."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import vllm

#: emulate.py puts it next to the package.
CASES = Path(vllm.__file__).parents[1] / "wave_cases.so"
THREADS = 256
CODE = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
print("right", library.vllm_wave_case(sys.argv[2].encode()))
"""


def run(name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, str(CASES), name], capture_output=True, text=True, check=False
    )


def lanes() -> int:
    count: int = ctypes.CDLL(str(CASES)).vllm_wave_lanes()
    return count


def test_the_architecture_decides_the_size_of_a_wave() -> None:
    old = os.environ["KERNEL_TEST_ARCHITECTURE"].startswith("gfx9")
    assert lanes() == (64 if old else 32)


@pytest.mark.parametrize(
    "name", ["shuffles", "ballots", "reductions", "syncs", "products", "signal"]
)
def test_warps_of_32_lanes_work_in_waves_of_either_size(name: str) -> None:
    done = run(name)
    assert done.stdout == f"right {THREADS}\n", done.stdout + done.stderr


def test_bits_of_a_wave_are_not_those_of_a_warp() -> None:
    """The second warp of a wave of 64 lanes gets wrong ones, and the first one right ones."""
    done = run("bits of a wave")
    assert done.stdout == f"right {THREADS if lanes() == 32 else THREADS // 2}\n", done.stderr


def test_lanes_of_a_wave_are_not_those_of_a_warp() -> None:
    done = run("lanes of a wave")
    assert done.stdout == f"right {THREADS if lanes() == 32 else THREADS // 2}\n", done.stderr


def test_a_signal_needs_the_release_of_every_thread() -> None:
    done = run("unreleased signal")
    assert done.returncode == -signal.SIGABRT
    assert re.search("^GPU emulation: a signal after a barrier", done.stderr), done.stderr


def test_other_names() -> None:
    assert run("something").stdout == "right -1\n"
