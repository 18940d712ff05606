# SPDX-License-Identifier: Apache-2.0
"""CMake variables that name the toolkit of the plan, so that CMake does not choose another one."""

from __future__ import annotations

import re
import shlex
import shutil
from typing import TYPE_CHECKING

from vllm_build.target.toolkits import rocm_toolkit

if TYPE_CHECKING:
    from vllm_build.settings.build_settings import Settings
    from vllm_build.target.device import Target
    from vllm_build.target.toolkits.toolkit_search import Toolkit

#: clang links the HIP runtime with every program, also with those by which CMake tests it. Our
#: libraries link none, and a conda environment may have none.
_NO_RUNTIME = "--start-no-unused-arguments -no-hip-rt --end-no-unused-arguments"

_NVCC_FLAGS = ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS", "CUDAFLAGS")
_HOST_COMPILER = re.compile(r"(?<!\S)(-ccbin|--compiler-bindir)[= ]")


def of_target(target: Target, settings: Settings) -> dict[str, str]:
    """The variables for the compiler and the folder of the target's toolkit.

    Raises:
        ToolchainError: ROCm has no clang for AMD GPUs.
    """
    toolkit = target.toolkit
    if toolkit is None:
        return {}
    if toolkit.kind == "cuda":
        return {
            "CMAKE_CUDA_COMPILER": str(toolkit.compiler),
            "CUDAToolkit_ROOT": str(toolkit.root),
            **_host_compiler(settings),
        }
    return of_rocm(toolkit, settings) if toolkit.kind == "rocm" else {}


def _host_compiler(settings: Settings) -> dict[str, str]:
    """The compiler that ``CXX`` names, for nvcc too, unless the environment names another for it.

    By itself nvcc takes the ``g++`` in ``PATH``. Its objects may then need a newer glibc or
    libstdc++ than the one that ``CXX`` links with.
    """
    inherited = settings.inherited
    if inherited.get("CUDAHOSTCXX") or inherited.get("NVCC_CCBIN"):
        return {}
    if any(_HOST_COMPILER.search(inherited.get(name, "")) for name in _NVCC_FLAGS):
        return {}
    words = shlex.split(inherited.get("CXX", ""))
    program = shutil.which(words[0], path=settings.search_path) if words else None
    return {"CMAKE_CUDA_HOST_COMPILER": program} if program else {}


def of_rocm(toolkit: Toolkit, settings: Settings) -> dict[str, str]:
    """ROCm's clang, unless ``HIPCXX`` names another one.

    Raises:
        ToolchainError: ROCm has no clang for AMD GPUs.
    """
    variables = {
        "CMAKE_HIP_COMPILER_ROCM_ROOT": str(toolkit.root),
        "CMAKE_HIP_FLAGS": f"{settings.inherited.get('HIPFLAGS', '')} {_NO_RUNTIME}".strip(),
        "CMAKE_HIP_PLATFORM": "amd",
    }
    if not settings.inherited.get("HIPCXX"):
        variables["CMAKE_HIP_COMPILER"] = str(
            rocm_toolkit.find_clang(toolkit, settings.search_path)
        )
    return variables
