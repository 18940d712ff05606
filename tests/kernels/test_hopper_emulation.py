# SPDX-License-Identifier: Apache-2.0
"""The emulation of Hopper's instructions.

A kernel that keeps their rules computes correct results; a kernel that breaks a rule is detected.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import vllm

#: emulate.py puts it next to the package.
CASES = Path(vllm.__file__).parents[1] / "hopper_cases.so"

CODE = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
print("result", library.vllm_hopper_case(sys.argv[2].encode()))
"""


def run(name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, str(CASES), name], capture_output=True, text=True, check=False
    )


def test_rules_that_are_kept() -> None:
    done = run("nothing")
    assert done.stdout == "result 1\n", done.stderr


@pytest.mark.parametrize("name", ["swizzle", "reuse"])
def test_a_rule_whose_breach_shows_in_the_result(name: str) -> None:
    done = run(name)
    assert done.stdout == "result 0\n", done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("async fence", "a product reads what was written"),
        ("parity", "a product reads what was written"),
        ("product fence", "a product without FenceProducts"),
        ("wait", "ended without waiting for its products"),
        ("commit", "ended without waiting for its products"),
        ("alignment", "whose rows do not begin at a multiple of 1024 bytes"),
        ("barrier init", "was not initialised"),
        ("arrival", "threads wait for others"),
        ("copies left", "ended before its copies"),
    ],
)
def test_breaking_a_rule_ends_the_process(name: str, words: str) -> None:
    done = run(name)
    assert done.returncode == -signal.SIGABRT
    assert re.search(f"^GPU emulation: .*{words}", done.stderr), done.stderr


def test_other_names() -> None:
    assert run("something").stdout == "result -1\n"
