# SPDX-License-Identifier: Apache-2.0
"""Changes the libraries and CMake files of PyTorch's CUDA build into those of a CPU build.

usage: for_cpu.py TORCH

TORCH is the ``torch`` folder of the unpacked wheel. GPU code is overwritten with zeros: only the
CUDA driver reads it, and it is two thirds of ``libtorch_cuda.so`` and would be most of the package.
``find_package(Torch)`` no longer requires a CUDA toolkit.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from elftools.elf.elffile import ELFFile

if TYPE_CHECKING:
    from typing import Any

GPU_CODE = (".nv_fatbin", "__nv_relfatbin")
#: File below share/cmake, its text for CUDA, and the replacement.
CMAKE = (
    (
        "Caffe2/Caffe2Config.cmake",
        "if(1)\n  # The file public/cuda.cmake",
        "if(0)\n  # The file public/cuda.cmake",
    ),
    (
        "Caffe2/Caffe2Targets.cmake",
        'INTERFACE_LINK_LIBRARIES "torch_cpu_library;torch_cuda_library"',
        'INTERFACE_LINK_LIBRARIES "torch_cpu_library"',
    ),
    (
        "Torch/TorchConfig.cmake",
        "if(1)\n  if(MSVC)\n    find_library(CAFFE2_NVRTC",
        "if(0)\n  if(MSVC)\n    find_library(CAFFE2_NVRTC",
    ),
)


def clear_gpu_code(path: Path) -> int:
    """Overwrite the sections with GPU code with zeros, and return their size in bytes."""
    with path.open("rb") as stream:
        elf: Any = ELFFile(stream)
        sections = [
            (s["sh_offset"], s["sh_size"])
            for name in GPU_CODE
            if (s := elf.get_section_by_name(name)) is not None
        ]
    with path.open("r+b") as stream:
        for offset, size in sections:
            stream.seek(offset)
            for start in range(0, size, 1 << 20):
                stream.write(bytes(min(1 << 20, size - start)))
    return sum(size for _, size in sections)


def replace_once(path: Path, old: str, new: str) -> None:
    """Replace the one occurrence of ``old``.

    Raises:
        ValueError: it does not occur exactly once, so this release of PyTorch differs from the one
            that the recipe was written for.
    """
    text = path.read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise ValueError(f"{path}: {old!r} occurs {text.count(old)} times, expected once")
    path.write_text(text.replace(old, new), encoding="utf-8")


def main() -> None:
    """Change the files below TORCH."""
    torch = Path(sys.argv[1])
    for library in sorted((torch / "lib").glob("*cuda*.so")) + sorted(
        (torch / "lib").glob("*nvshmem*.so")
    ):
        print(f"{library.name}: {clear_gpu_code(library) / 1e6:.0f} MB of GPU code cleared")
    for name, old, new in CMAKE:
        replace_once(torch / "share" / "cmake" / name, old, new)


if __name__ == "__main__":
    main()
