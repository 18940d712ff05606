# SPDX-License-Identifier: Apache-2.0
"""Runs the tests of this folder on a GPU, with whichever vllm and torch this interpreter imports.

    python tests/kernels/on_gpu.py [--compute-sanitizer] [pytest's arguments]      without the last: all tests of what GPU kernels there are

Needs a GPU, a torch for it, pytest, hypothesis, and the kernels: the packages or a wheel; or a build in the tree (``cmake --preset cuda``,
``cmake --build --preset cuda``, ``cmake --install build/cmake-cuda --prefix .``) with the tree on PYTHONPATH. The tests are those of the
CPU's kernels: torch makes their tensors on the GPU, and their references as well, in float64.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys

from child import HERE, command, environment
from emulate import TESTS

#: Tests of what no emulation runs; and of what needs several GPUs in one process, which torch's do not offer, or of the emulation itself.
ALONE = ("test_cumem.py", "test_flash_attn.py")
EMULATED = ("test_custom_all_reduce.py", "test_hopper_emulation.py")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--compute-sanitizer", action="store_true", help="under NVIDIA's memory checker; slow: choose tests with -k")
    options, rest = parser.parse_known_args(arguments)
    every = [str(HERE / name) for names in (*TESTS.values(), ALONE) for name in names if name not in EMULATED]
    chosen = command(rest or every, "cuda")
    if options.compute_sanitizer:
        checker = shutil.which("compute-sanitizer")
        if checker is None:
            raise SystemExit("error: compute-sanitizer is not on PATH\n  expected: NVIDIA's checker, conda package cuda-sanitizer-api")
        chosen = [checker, "--error-exitcode", "1", *chosen]
    return subprocess.run(chosen, env=environment("cuda"), check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
