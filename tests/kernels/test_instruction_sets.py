# SPDX-License-Identifier: Apache-2.0
"""Runs the numerical tests for the other compiled instruction sets that this CPU has.

All tests use the best set. Each other one needs a process of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

NUMERICAL = (
    "test_activation.py",
    "test_attention.py",
    "test_attention_arguments.py",
    "test_attention_cache.py",
    "test_attention_fp8.py",
    "test_cache.py",
    "test_cache_arguments.py",
    "test_cache_blocks.py",
    "test_cache_read.py",
    "test_gates.py",
    "test_latent_attention.py",
    "test_merge_states.py",
    "test_gemm.py",
    "test_gemm_int8.py",
    "test_moe.py",
    "test_moe_align.py",
    "test_moe_sum.py",
    "test_moe_experts.py",
    "test_norm.py",
    "test_norm_quant.py",
    "test_not_a_number.py",
    "test_not_a_number_attention.py",
    "test_not_a_number_choices.py",
    "test_packed_weight.py",
    "test_qk_norm_rope.py",
    "test_quant_fp8.py",
    "test_quant_fp8_arguments.py",
    "test_quant_group.py",
    "test_quant_int8.py",
    "test_rejection.py",
    "test_rotary.py",
    "test_sampling.py",
)
ASK = "import torch; from vllm._kernels import loader; loader.load(); print(torch.ops._C.cpu_isa())"


def python(limit: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this interpreter with this process's module path and VLLM_CPU_ISA."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = os.environ | {
        "VLLM_CPU_ISA": limit,
        "PYTHONPATH": path,
        "KERNEL_TEST_EXAMPLES": "10",
    }
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def compiled() -> list[str]:
    """Instruction sets that the library was compiled for, from the error for an unknown one."""
    refused = python("none", "-c", ASK)
    match = re.search(r"RuntimeError: VLLM_CPU_ISA is 'none', expected one of (.*)", refused.stderr)
    assert match, refused.stderr
    return match.group(1).split(", ")


def test_more_than_the_baseline_is_compiled() -> None:
    assert len(compiled()) > 1


@pytest.mark.parametrize("variable", ["", "AVX2"])
def test_variable_may_be_empty_or_in_capitals(variable: str) -> None:
    if variable.lower() not in {"", *compiled()}:
        pytest.skip(f"not compiled for {variable}")
    done = python(variable, "-c", ASK)
    assert done.returncode == 0, done.stderr


#: Linux's names of the features that amx uses in addition to ZEN4.
AMX = {"amx_bf16", "amx_int8", "amx_tile"}
#: Linux's names of the features that avx3_zen4 may use in addition to Skylake-X's AVX-512.
ZEN4 = {
    "avx512_bf16",
    "avx512_bitalg",
    "avx512_vbmi2",
    "avx512_vnni",
    "avx512_vpopcntdq",
    "avx512ifma",
    "avx512vbmi",
    "gfni",
    "vaes",
    "vpclmulqdq",
}


def cpu_flags() -> set[str]:
    """Linux's names of this CPU's features; empty where Linux does not tell."""
    info = Path("/proc/cpuinfo")
    found = re.search(
        r"^flags\s*:(.*)", info.read_text(encoding="utf-8") if info.exists() else "", re.MULTILINE
    )
    return set(found.group(1).split()) if found else set()


def test_bfloat16_of_the_cpu_is_used() -> None:
    """On CPUs of both Intel and AMD."""
    if not cpu_flags() >= ZEN4:
        pytest.skip("this CPU has no AVX-512 with bfloat16")
    want = "amx" if cpu_flags() >= AMX else "avx3_zen4"
    assert python("", "-c", ASK).stdout.strip() == want


#: Lets Linux refuse the permission for tiles to this process, as for a CPU without them:
#: ARCH_REQ_XCOMP_PERM fails if a signal stack is too small for the tiles.
REFUSED = """
import ctypes

class Stack(ctypes.Structure):
    _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

memory = ctypes.create_string_buffer(6000)
stack = Stack(ctypes.addressof(memory), 0, 6000)
assert ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0
"""


def test_tiles_that_linux_refuses_are_not_used() -> None:
    if not cpu_flags() >= AMX:
        pytest.skip("this CPU has no AMX")
    done = python("", "-c", REFUSED + ASK)
    assert done.stdout.strip() == "avx3_zen4", done.stderr
    product = "c = torch.empty(8, 16); b = torch.eye(16)[:8]"
    multiply = (
        f"; {product}; a = torch.eye(8).bfloat16(); c = c.bfloat16(); "
        "handle = torch.tensor(torch.ops._C.create_onednn_mm_handler(b.bfloat16(), 8)); "
        "torch.ops._C.onednn_mm(c, a, None, handle); assert torch.equal(c, b.bfloat16())"
    )
    done = python("", "-c", REFUSED + ASK + multiply)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("rank", range(5))
def test_numerical_tests(pytestconfig: pytest.Config, rank: int) -> None:
    """Rank 0 is the best compiled instruction set."""
    sets = compiled()
    if rank >= len(sets):
        pytest.skip(f"compiled for {len(sets)} instruction sets only")
    if rank < len(sets) - 1 and os.environ.get("VLLM_TEST_FULL") != "1":
        # `make test` covers the best set and the lowest one, whose vectors are the shortest.
        pytest.skip("guards a rare path: make test-full runs all instruction sets")
    limit = sets[rank]
    if limit == torch.ops._C.cpu_isa():
        pytest.skip(f"all other tests ran with {limit} already")
    chosen = python(limit, "-c", ASK).stdout.strip()
    if chosen != limit:
        pytest.skip(f"this CPU has no {limit}")
    here = Path(__file__).parent
    # Keep this process's module path. The path of the configuration would put the source tree
    # before the installed package.
    config = [
        "-o",
        "pythonpath=",
        *(["-c", str(pytestconfig.inipath)] if pytestconfig.inipath else []),
    ]
    files = [str(here / name) for name in NUMERICAL]
    done = python(
        limit,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *config,
        "--rootdir",
        str(pytestconfig.rootpath),
        "--confcutdir",
        str(here),
        *files,
    )
    assert done.returncode == 0, f"with {limit}:\n{done.stdout[-8000:]}{done.stderr[-2000:]}"
