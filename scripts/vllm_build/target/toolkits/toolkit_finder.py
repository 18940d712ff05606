# SPDX-License-Identifier: Apache-2.0
"""Finds the accelerator toolkits: CUDA, ROCm and the oneAPI compiler for SYCL.

All are searched for in the same order: the variables that name the toolkit, ``PATH``, the conda
environments of the build, wheels, its usual place. If a variable names a toolkit, it must exist;
elsewhere a missing compiler means "not found". A compiler that does not work is always an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.architectures.gpu_targets import FLOORS
from vllm_build.target.toolkits import cuda_toolkit
from vllm_build.target.toolkits.cuda_toolkit import find_cuda
from vllm_build.target.toolkits.rocm_toolkit import find_rocm
from vllm_build.target.toolkits.sycl_toolkit import find_sycl
from vllm_build.target.toolkits.toolkit_search import Toolkit
from vllm_build.util.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from packaging.version import Version

    from vllm_build.settings.build_settings import Settings

__all__ = [
    "FINDERS",
    "Toolkit",
    "find",
    "find_cuda",
    "find_rocm",
    "find_sycl",
    "nvcc_cuda_version",
    "require",
]

#: The finder of each device that needs a toolkit, in the order in which detection tries them.
FINDERS: Mapping[str, Callable[[Settings], Toolkit | None]] = {
    "cuda": find_cuda,
    "rocm": find_rocm,
    "xpu": find_sycl,
}
#: For messages: what is needed, the variable that names it, its program, and the places where the
#: finder searches.
_WANTED = {
    "cuda": (
        f"a CUDA toolkit with nvcc, {FLOORS['cuda']} or newer",
        "CUDA_HOME",
        "nvcc",
        "CUDA_HOME, CUDA_PATH, PATH, conda environments and NVIDIA's wheels",
    ),
    "rocm": (
        f"ROCm with hipcc or its clang, {FLOORS['rocm']} or newer",
        "ROCM_HOME",
        "hipcc and ROCm's clang",
        "ROCM_HOME, ROCM_PATH, PATH, conda environments, ROCm's wheels and /opt/rocm",
    ),
    "xpu": (
        "the oneAPI DPC++ compiler",
        "CMPLR_ROOT",
        "icpx",
        "CMPLR_ROOT, PATH, conda environments, ONEAPI_ROOT and /opt/intel/oneapi",
    ),
}


def find(device: str, settings: Settings) -> Toolkit | None:
    """The toolkit of ``device``; None if there is none or the device needs none.

    Raises:
        ToolchainError: the toolkit is broken, too old, or not where a variable says.
    """
    finder = FINDERS.get(device)
    return finder(settings) if finder else None


def require(device: str, settings: Settings) -> Toolkit:
    """The toolkit of ``device``, which is ``cuda``, ``rocm`` or ``xpu``.

    Raises:
        ToolchainError: it is missing, broken or too old.
    """
    found = find(device, settings)
    if found is None:
        wanted, variable, program, places = _WANTED[device]
        usual = device == "cuda" and (cuda_toolkit.USUAL / "bin" / "nvcc").is_file()
        there = (
            f"set {variable}={cuda_toolkit.USUAL}, which contains a toolkit"
            if usual
            else f"install it and set {variable} or PATH"
        )
        raise ToolchainError(
            f"no toolkit for device {device} was found: searched {places} for {program}",
            expected=wanted,
            remedy=f"{there}, or choose another device with VLLM_TARGET_DEVICE (cpu needs no "
            "toolkit)",
        )
    return found


def nvcc_cuda_version(settings: Settings) -> Version:
    """The release of the CUDA toolkit that a build would use, such as 12.9.

    Raises:
        ToolchainError: nvcc is missing, broken or too old.
    """
    return require("cuda", settings).version
