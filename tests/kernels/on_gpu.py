# SPDX-License-Identifier: Apache-2.0
"""Runs the tests of this folder on a GPU, with the vllm and torch of this interpreter.

    python tests/kernels/on_gpu.py [pytest's arguments]
    python tests/kernels/on_gpu.py --compute-sanitizer [--tool TOOL] [...]

Without arguments, all tests of GPU kernels run. With ``--compute-sanitizer`` they run under
NVIDIA's checker, by default only the small cases. This needs a GPU, a torch for it, pytest,
hypothesis, and the kernels: the packages, a wheel, or a build in the tree (``cmake --preset cuda``,
``cmake --build --preset cuda``, ``cmake --install build/cmake-cuda --prefix .``) with the tree on
PYTHONPATH. The tests are those of the CPU's kernels: torch creates their tensors on the GPU,
including those of the float64 references.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from child import command, environment, tests
from emulate import BENCH, OVERALL, TESTS

#: Tests that no emulation can run.
ALONE = (
    "test_cumem.py",
    "test_flash_attn.py",
    "test_flash_attn_arguments.py",
    "test_flash_attn_caches.py",
    "test_flash_attn_schedule.py",
)
#: Tests that only the emulation can run: they need several GPUs in one process, or test the
#: emulation itself.
EMULATED = (
    *("test_custom_all_reduce.py", "test_hopper_emulation.py"),
    *TESTS["paged-attention-rocm"],
    *TESTS["few-rows-rocm"],
)
#: Tests for the checker, which makes a kernel a hundred times slower: every op once, and accesses
#: outside a tensor.
SMALL = (*OVERALL, BENCH, "test_cache_gpu.py", "test_moe_gpu.py")
#: They find accesses outside of memory, races within a block, and barriers that not all threads
#: reach.
TOOLS = ("memcheck", "racecheck", "synccheck")


def why_not() -> str:
    """Why tests cannot run here; empty if they can."""
    try:
        import torch
    except ModuleNotFoundError as error:
        return (
            f"{sys.executable} cannot import torch ({error})\n  expected: a torch for CUDA\n"
            "  to do:    make gpu-tests PYTHON=…"
        )
    if torch.cuda.is_available():
        return ""
    expected = "a machine with a GPU, its driver, and a torch for it"
    return (
        f"torch {torch.__version__} sees no GPU\n  expected: {expected}\n"
        "  to do:    without one: make emulate"
    )


def checker() -> str:
    """Find NVIDIA's compute-sanitizer on PATH or in its package from PyPI."""
    found = shutil.which("compute-sanitizer")
    if found is None:
        installed = sorted(
            Path(sysconfig.get_path("purelib")).glob("nvidia/*/compute-sanitizer/compute-sanitizer")
        )
        found = str(installed[0]) if installed else None
    if found is None:
        raise SystemExit(
            "error: there is no compute-sanitizer\n  expected: on PATH, or in this environment\n"
            "  to do:    pip install nvidia-cuda-sanitizer-api (CUDA 12: "
            "nvidia-cuda-sanitizer-api-cu12)"
        )
    return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--compute-sanitizer", action="store_true", help="under NVIDIA's checker")
    parser.add_argument(
        "--tool",
        choices=TOOLS,
        action="append",
        help="which tool of the checker to run (default: all, one after the other)",
    )
    options, rest = parser.parse_known_args(arguments)
    tool = checker() if options.compute_sanitizer else ""
    if problem := why_not():
        raise SystemExit(f"error: {problem}")
    every = [
        name
        for names in (*TESTS.values(), OVERALL, ALONE, (BENCH,))
        for name in names
        if name not in EMULATED
    ]
    chosen = command(tests(rest, SMALL if tool else every), "cuda")
    if not tool:
        return subprocess.run(chosen, env=environment("cuda"), check=False).returncode
    # Without torch's caching, each tensor is a separate allocation. In torch's blocks, the memory
    # after a tensor belongs to another one.
    env = {**environment("cuda"), "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    failed = []
    for name in options.tool or TOOLS:
        print(f"compute-sanitizer: {name}", flush=True)
        if subprocess.run(
            [tool, "--tool", name, "--error-exitcode", "1", *chosen], env=env, check=False
        ).returncode:
            failed.append(name)
    print(f"compute-sanitizer: {', '.join(failed) or 'no tool'} found errors")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
