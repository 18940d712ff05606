# SPDX-License-Identifier: Apache-2.0
"""Strings that ops receive are freed.

The conversion in torch 2.13's headers loses one per call.
"""

from __future__ import annotations

import subprocess
import sys

CODE = """
import resource, torch
from vllm._kernels import loader
loader.load()
op = torch.ops._C_cache_ops.convert_fp8
codes, values = torch.zeros(1, dtype=torch.uint8), torch.zeros(1)
def calls(count):
    for _ in range(count):
        op(codes, values, 1.0, "fp8_e4m3")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = calls(20_000)
print(calls(200_000) - before)
long = "x" * 5000
for _ in range(20_000):
    try:
        op(codes, values, 1.0, long)
    except RuntimeError as error:
        assert long in str(error), error
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_no_string_is_lost() -> None:
    """Kilobytes: 200,000 lost strings are at least 6 MB, 20,000 lost long ones 100 MB."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", CODE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    short, long = map(int, done.stdout.split())
    assert short < 2000
    assert long < 20_000
