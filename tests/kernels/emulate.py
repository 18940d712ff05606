# SPDX-License-Identifier: Apache-2.0
"""Compiles the GPU kernels for the CPU, and runs the tests of this folder with them: what they compute is tested without a GPU.

    python tests/kernels/emulate.py [--sanitize] [pytest's arguments]      all tests of what is emulated without arguments

Needs what a build and the tests need: torch, GCC, CMake, Ninja, pytest, hypothesis. The build has a folder of its own,
build/cmake-emulation, and is kept. emulation/gpu_emulation.h says what such a test shows and what not.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from child import HERE, ROOT, copy_package, pytest
from sanitize import environment as sanitized

if TYPE_CHECKING:
    from pathlib import Path

sys.path.insert(0, str(ROOT / "scripts"))

from vllm_build import kernels_table, torch_files  # noqa: E402 - the source tree is put on the path first

#: They are the emulation's own, or instructions of a GPU by name.
LEFT_OUT = ("gpu-runtime", "gpu-runtime-moe")
#: What the kernels of a record are tested by.
TESTS = {
    "activation-gpu": ("test_activation.py", "test_gates.py"),
    "cache-gpu": ("test_cache.py", "test_cache_read.py", "test_cache_gpu.py"),
    "indexer-cache-gpu": ("test_indexer_cache.py",),
    "merge-states-gpu": ("test_merge_states.py",),
    "sampling-gpu": ("test_sampling.py",),
    "moe-gpu": ("test_moe.py", "test_moe_gpu.py"),
}
FLAGS = "-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"


def build(*, sanitize: bool) -> Path:
    """Compile; returns the build folder, whose folder "site" holds the package."""
    folder = ROOT / "build" / ("cmake-emulation-sanitize" if sanitize else "cmake-emulation")
    table = kernels_table.load(ROOT)
    torch = torch_files.find()
    records = [kernel for kernel in table.kernels if "cuda" in kernel.devices and kernel.name not in LEFT_OUT]
    sources = [ROOT / source for kernel in records for source in kernel.sources]
    sources += [ROOT / "csrc" / "bindings" / "arguments.cc"]
    configure = ["cmake", "-S", str(HERE / "emulation"), "-B", str(folder), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    configure += ["-DVLLM_WERROR=ON", f"-DVLLM_EMULATED_SOURCES={';'.join(map(str, sources))}"]
    configure += [f"-DVLLM_TORCH_INCLUDE_DIRS={torch.include}", f"-DVLLM_TORCH_CPU_LIBRARY={torch.library}"]
    if sanitize:
        configure += [f"-DCMAKE_CXX_FLAGS_RELWITHDEBINFO={FLAGS}", "-DVLLM_WERROR=OFF"]
    subprocess.run(configure, check=True)
    subprocess.run(["cmake", "--build", str(folder)], check=True)
    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    copy_package(site)
    shutil.copyfile(folder / "_C.abi3.so", site / "vllm" / "_C.abi3.so")
    return folder


def main(arguments: list[str]) -> int:
    sanitize = "--sanitize" in arguments
    arguments = [argument for argument in arguments if argument != "--sanitize"]
    folder = build(sanitize=sanitize)
    chosen = arguments or [str(HERE / name) for names in TESTS.values() for name in names]
    environment = {"KERNEL_TEST_DEVICE": "emulated", "OMP_NUM_THREADS": "1"}
    if sanitize:
        environment |= sanitized(folder)
    return pytest(folder / "site", ["-m", "not contents", *chosen], environment)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
