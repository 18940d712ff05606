# SPDX-License-Identifier: Apache-2.0
"""Runs the tests of this folder with GPU kernels that are compiled for the CPU.

    python tests/kernels/emulate.py [--device cuda|rocm] [--architecture GFX] [--sanitize]
                                    [--build DIR] [pytest's arguments]

Without arguments of pytest, all tests of the device's emulated kernels run: for ROCm once for an
architecture with waves of 64 lanes, and once for one with waves of 32. This needs what a build and
the tests need: torch, GCC, CMake, Ninja, pytest and hypothesis. The build is kept below build/.
emulation/gpu_emulation.h describes what the tests show and what they do not.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from child import HERE, ROOT, copy_package, pytest, tests
from sanitize import environment as sanitized

sys.path.insert(0, str(ROOT / "scripts"))

from vllm_build.kernels import kernels_table
from vllm_build.target import torch_files

#: Kernels that are not emulated: the emulation replaces them, or they use GPU instructions by name,
#: or they are CUTLASS's scaled products, which no C++ compiler accepts. The checks of the scaled
#: products' arguments are emulated.
LEFT_OUT = (
    *("gpu-runtime", "gpu-runtime-flashmla", "gpu-runtime-moe", "gpu-attributes"),
    *("cumem-cuda", "cumem-rocm"),
    *("gpu-runtime-rocm", "hip-runtime", "hip-runtime-moe", "hip-runtime-rocm"),
    *("scaled-mm-int8-sm80", "scaled-mm-fp8-sm89", "scaled-mm-sm90"),
)
#: Extensions that stay separate libraries, because Python loads them by name. All others are linked
#: into "_C".
OWN = {"vllm._flashmla_C": "_flashmla_C", "vllm._rocm_C": "_rocm_C"}
#: Kernels for the tests of the emulation itself, by device.
CASES = {"cuda": "hopper_cases", "rocm": "wave_cases"}
#: Kernel record -> files that test its kernels.
TESTS = {
    "custom-all-reduce-gpu": ("test_custom_all_reduce.py",),
    "activation-gpu": ("test_activation.py", "test_gates.py"),
    "norm-gpu": ("test_norm.py",),
    "norm-quant-gpu": ("test_norm_quant.py",),
    "norm-block-quant-gpu": ("test_norm_block_quant.py",),
    "qk-norm-rope-gpu": ("test_qk_norm_rope.py",),
    "rotary-gpu": ("test_rotary.py",),
    "quant-gpu": (
        *("test_quant_fp8.py", "test_quant_fp8_arguments.py"),
        *("test_quant_int8.py", "test_quant_group.py"),
    ),
    "cache-gpu": (
        *("test_cache.py", "test_cache_arguments.py", "test_cache_read.py"),
        *("test_cache_blocks.py", "test_cache_gpu.py"),
    ),
    "indexer-cache-gpu": ("test_indexer_cache.py",),
    "merge-states-gpu": ("test_merge_states.py",),
    "flashmla": ("test_flashmla.py", "test_flashmla_arguments.py"),
    "paged-attention-rocm": ("test_rocm_attention.py", "test_rocm_attention_arguments.py"),
    "few-rows-rocm": (
        *("test_rocm_gemm.py", "test_rocm_gemm_arguments.py"),
        "test_rocm_gemm_quantised.py",
    ),
    "sampling-gpu": ("test_sampling.py",),
    "scaled-mm": ("test_scaled_mm.py",),
    "moe-gpu": ("test_moe.py", "test_moe_align.py", "test_moe_sum.py", "test_moe_gpu.py"),
}
#: Tests of the emulation itself and of the benchmark's cases, which are CUDA's, by device.
BENCH = "test_bench_cases.py"
OF_EMULATION = {"cuda": ("test_hopper_emulation.py", BENCH), "rocm": ("test_wave_emulation.py",)}
#: Tests that use kernels of all records.
OVERALL = (
    "test_not_a_number.py",
    "test_not_a_number_attention.py",
    "test_not_a_number_choices.py",
)
FLAGS = (
    "-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"
)


@dataclass(frozen=True)
class Emulated:
    """What is emulated."""

    device: str
    architecture: str  # "" for CUDA, else such as "gfx942"

    @property
    def name(self) -> str:
        """The name of its folder below build/."""
        return "cmake-emulation" + (f"-{self.architecture}" if self.architecture else "")

    @property
    def capability(self) -> int:
        """The architecture's major and minor version as one number; 0 for CUDA."""
        return int(self.architecture[3:-1]) if self.architecture else 0

    @property
    def wave(self) -> int:
        """Lanes of a wave: CDNA and its ancestors have 64."""
        return 64 if self.device == "rocm" and self.capability < 100 else 32


#: Emulated unless the command line says otherwise: E4M3 is float8_e4m3fnuz on the first AMD GPU,
#: and float8_e4m3fn on the second.
DEFAULTS = {
    "cuda": (Emulated("cuda", ""),),
    "rocm": (Emulated("rocm", "gfx942"), Emulated("rocm", "gfx1201")),
}


def choose(device: str, architecture: str | None) -> tuple[Emulated, ...]:
    """Return what the options ask for."""
    if architecture is None:
        return DEFAULTS[device]
    if device != "rocm" or not re.fullmatch(r"gfx\d{2,3}[0-9a-f]", architecture):
        raise SystemExit(
            f"error: --device {device} --architecture {architecture}\n"
            "  expected: --device rocm and an architecture such as gfx942 or gfx1201"
        )
    return (Emulated(device, architecture),)


def build(folder: Path, emulated: Emulated, *, sanitize: bool) -> list[str]:
    """Compile in ``folder``, put the package into its folder "site", and return its tests."""
    table = kernels_table.load(ROOT)
    torch = torch_files.find()
    if gone := set(LEFT_OUT).difference(k.name for k in table.kernels):
        raise SystemExit(
            f"error: {', '.join(sorted(gone))} in LEFT_OUT are not in {table.path}\n"
            "  expected: names of kernels for CUDA or ROCm"
        )
    # Other people's kernels are in separate libraries.
    every = [
        k
        for k in table.kernels
        if emulated.device in k.devices and not k.sets and not k.third_party
    ]
    print(f"not emulated: {', '.join(k.name for k in every if k.name in LEFT_OUT)}", flush=True)
    records = [k for k in every if k.name not in LEFT_OUT]
    libraries: dict[str, list[Path]] = {}
    for kernel in records:
        start = [ROOT / "csrc" / "bindings" / "arguments.cc"]
        libraries.setdefault(OWN.get(kernel.extension, "_C"), start).extend(
            ROOT / source for source in kernel.sources
        )
    own_cases = CASES[emulated.device]
    cases = {own_cases: [HERE / "emulation" / f"{own_cases}.cu"]}
    configure = [
        "cmake",
        "-S",
        str(HERE / "emulation"),
        "-B",
        str(folder),
        "-G",
        "Ninja",
        "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
    ]
    configure += [
        "-DVLLM_WERROR=ON",
        f"-DVLLM_PLAN_DEVICE={emulated.device}",
        f"-DVLLM_EMULATED_WAVE={emulated.wave}",
        f"-DVLLM_EMULATED_CAPABILITY={emulated.capability}",
        f"-DVLLM_EMULATED_LIBRARIES={';'.join([*libraries, own_cases])}",
    ]
    configure += [
        f"-DVLLM_EMULATED_{name}={';'.join(map(str, sources))}"
        for name, sources in (libraries | cases).items()
    ]
    configure += [
        f"-DVLLM_TORCH_INCLUDE_DIRS={torch.include}",
        f"-DVLLM_TORCH_CPU_LIBRARY={torch.library}",
    ]
    if sanitize:
        configure += [f"-DCMAKE_CXX_FLAGS_RELWITHDEBINFO={FLAGS}", "-DVLLM_WERROR=OFF"]
    subprocess.run(configure, check=True)
    subprocess.run(["cmake", "--build", str(folder)], check=True)
    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    copy_package(site)
    for name in libraries:
        shutil.copyfile(folder / f"{name}.abi3.so", site / "vllm" / f"{name}.abi3.so")
    shutil.copyfile(folder / f"{own_cases}.abi3.so", site / f"{own_cases}.so")
    names = [name for kernel in records for name in TESTS.get(kernel.name, ())]
    return [*names, *OF_EMULATION[emulated.device], *OVERALL]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument(
        "--device", choices=("cuda", "rocm"), default="cuda", help="the kernels' device"
    )
    parser.add_argument(
        "--architecture", help="of an AMD GPU, such as gfx942 (default: gfx942, then gfx1201)"
    )
    parser.add_argument(
        "--sanitize",
        action="store_true",
        help="with AddressSanitizer and UndefinedBehaviorSanitizer",
    )
    parser.add_argument(
        "--build",
        type=Path,
        help="the folder to build in; it is kept (default: one below build/)",
    )
    options, rest = parser.parse_known_args(arguments)
    chosen = choose(options.device, options.architecture)
    status = 0
    for emulated in chosen:
        if options.build is None:
            folder = ROOT / "build" / (emulated.name + ("-sanitize" if options.sanitize else ""))
        else:
            folder = options.build / emulated.name if len(chosen) > 1 else options.build
        folder = folder.resolve()
        files = build(folder, emulated, sanitize=options.sanitize)
        if emulated.architecture:
            print(f"{emulated.architecture}: waves of {emulated.wave} lanes", flush=True)
        more = {"OMP_NUM_THREADS": "1", "KERNEL_TEST_ARCHITECTURE": emulated.architecture}
        if options.sanitize:
            more |= sanitized(folder)
        status = pytest(folder / "site", tests(rest, files), "emulated", more) or status
    return status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
