# SPDX-License-Identifier: Apache-2.0
"""Variables of other tools that people set for builds, and their effect here.

The tools are upstream vLLM, CMake, setuptools, torch, and those of NVIDIA and AMD. A build warns
once about each variable that has no effect here, so that no request is ignored silently. Sources:
upstream's ``setup.py``, ``vllm/envs.py`` and ``cmake/``; cmake-env-variables(7);
scikit-build-core's settings; setuptools-scm's overrides; torch's ``setup.py`` and
``cpp_extension``; nvcc's manual.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.settings import build_settings
from vllm_build.util.redaction import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_CUDA, _ROCM, _CPU = ("cuda",), ("rocm",), ("cpu",)


@dataclass(frozen=True)
class Ignored:
    """A variable that this build does not read.

    Attributes:
        names: variables that share an explanation.
        instead: the explanation, and what to do instead.
        devices: the devices for which it would matter; empty means all.
        matters: a pattern for the values that would matter.
    """

    names: tuple[str, ...]
    instead: str
    devices: tuple[str, ...] = ()
    matters: str = r".*\S.*"


#: Variables that are passed to another program, and that program. Settings has no field for them.
HONOURED: Mapping[str, str] = {
    "CC, CXX, CUDAHOSTCXX, HIPCXX": (
        "CMake; the compilers. nvcc compiles with `CXX` unless a variable names another compiler"
    ),
    "CFLAGS, CXXFLAGS, CUDAFLAGS, HIPFLAGS, LDFLAGS": (
        "CMake; this machine's run paths are removed from `LDFLAGS`"
    ),
    "CMAKE_PREFIX_PATH, CMAKE_TOOLCHAIN_FILE": "CMake",
    "NVCC_PREPEND_FLAGS, NVCC_APPEND_FLAGS, NVCC_CCBIN": (
        "nvcc; `NVCC_THREADS` is added to `NVCC_APPEND_FLAGS`"
    ),
    "CCACHE_*, SCCACHE_*": "ccache, sccache",
    "MACOSX_DEPLOYMENT_TARGET, SDKROOT": "CMake",
}

IGNORED = (
    Ignored(
        ("VLLM_PRECOMPILED_WHEEL_COMMIT",),
        "kernels are looked up by the digest of their sources, not by a commit; "
        "VLLM_PRECOMPILED_WHEEL_LOCATION names a file, and VLLM_PRECOMPILED_STORES names stores to "
        "search",
    ),
    Ignored(
        ("VLLM_PRECOMPILED_WHEEL_VARIANT",), "VLLM_TARGET_DEVICE and the toolkit choose the variant"
    ),
    Ignored(("VLLM_DOCKER_BUILD_CONTEXT",), "builds in containers are not special"),
    Ignored(
        (
            "VLLM_CPU_DISABLE_AVX512",
            "VLLM_CPU_AVX2",
            "VLLM_CPU_AVX512",
            "VLLM_CPU_AVX512BF16",
            "VLLM_CPU_AVX512VNNI",
            "VLLM_CPU_AMXBF16",
            "VLLM_CPU_X86",
            "VLLM_CPU_ARM_BF16",
        ),
        "the binary contains code for every instruction set and chooses at run time; VLLM_CPU_ISA "
        "limits the choice",
        _CPU,
    ),
    Ignored(
        ("VLLM_INSTALL_PUNICA_KERNELS", "VLLM_REQUIRE_RUST_FRONTEND"),
        "this build has no such component",
    ),
    Ignored(
        (
            "DEEPGEMM_SRC_DIR",
            "FLASH_MLA_SRC_DIR",
            "QUTLASS_SRC_DIR",
            "TRITON_KERNELS_SRC_DIR",
            "FETCHCONTENT_BASE_DIR",
        ),
        "third_party/lock.toml determines the third-party sources",
    ),
    Ignored(
        (
            "SETUPTOOLS_SCM_PRETEND_VERSION",
            "SETUPTOOLS_SCM_PRETEND_VERSION_FOR_VLLM",
            "SETUPTOOLS_SCM_OVERRIDES_FOR_VLLM",
        ),
        "the version does not come from git; VLLM_VERSION_OVERRIDE sets it",
    ),
    Ignored(
        ("SKBUILD_CMAKE_ARGS", "SKBUILD_CMAKE_DEFINE", "SKBUILD_CONFIGURE_OPTIONS"),
        "this is not a scikit-build project; use CMAKE_ARGS",
    ),
    Ignored(
        ("SKBUILD_CMAKE_BUILD_TYPE",), "this is not a scikit-build project; use CMAKE_BUILD_TYPE"
    ),
    Ignored(("SKBUILD_BUILD_DIR",), "this is not a scikit-build project; use VLLM_BUILD_ROOT"),
    Ignored(
        ("SKBUILD_BUILD_OPTIONS", "SKBUILD_BUILD_VERBOSE"),
        "this is not a scikit-build project; use MAX_JOBS and VERBOSE",
    ),
    Ignored(
        ("CMAKE_C_COMPILER", "CMAKE_CXX_COMPILER"),
        "CMake reads it only as a definition (-D); use CC and CXX, or CMAKE_ARGS",
    ),
    Ignored(
        ("CMAKE_C_FLAGS", "CMAKE_CXX_FLAGS"),
        "CMake reads it only as a definition (-D); use CFLAGS and CXXFLAGS, or CMAKE_ARGS",
    ),
    Ignored(("CMAKE_CONFIGURATION_TYPES",), "a build has one type; use CMAKE_BUILD_TYPE"),
    Ignored(("CMAKE_BUILD_JOBS", "NINJAFLAGS", "NINJA_FLAGS"), "use MAX_JOBS"),
    # make sets these for its children, usually without a number of jobs.
    Ignored(
        ("MAKEFLAGS", "GNUMAKEFLAGS"),
        "this build ignores its number of jobs; use MAX_JOBS",
        (),
        r"(.*\s)?(-?\w*j\s?[0-9]+|--jobs).*",
    ),
    Ignored(("USE_NINJA",), "use CMAKE_GENERATOR", (), r"\s*(0|off|no|false)\s*"),
    Ignored(
        ("USE_CUDA", "USE_ROCM", "FORCE_CUDA", "NO_CUDA"),
        "only torch's own build reads it; use VLLM_TARGET_DEVICE",
    ),
    Ignored(
        ("CMAKE_CUDA_COMPILER", "CUDACXX"),
        "the compiler is nvcc from the toolkit that CUDA_HOME chooses",
        _CUDA,
    ),
    Ignored(
        (
            "CUDA_ROOT",
            "CUDAToolkit_ROOT",
            "CUDA_TOOLKIT_ROOT_DIR",
            "CUDA_TOOLKIT_ROOT",
            "CUDA_BIN_PATH",
        ),
        "CUDA_HOME chooses the toolkit",
        _CUDA,
    ),
    Ignored(
        ("CUDAARCHS",),
        "TORCH_CUDA_ARCH_LIST or CMAKE_CUDA_ARCHITECTURES chooses the architectures",
        _CUDA,
    ),
    Ignored(
        ("CMAKE_CUDA_FLAGS", "TORCH_NVCC_FLAGS", "NVCC_FLAGS"),
        "use CUDAFLAGS or NVCC_APPEND_FLAGS",
        _CUDA,
    ),
    Ignored(("HIP_PATH", "ROCM_ROOT", "HIP_ROOT_DIR"), "ROCM_HOME chooses the toolkit", _ROCM),
    Ignored(
        (
            "HCC_AMDGPU_TARGET",
            "AMDGPU_TARGETS",
            "GPU_TARGETS",
            "GPU_ARCHS",
            "CMAKE_HIP_ARCHITECTURES",
        ),
        "PYTORCH_ROCM_ARCH chooses the architectures",
        _ROCM,
    ),
    Ignored(
        ("CMAKE_HIP_COMPILER", "CMAKE_HIP_FLAGS"),
        "CMake reads it only as a definition (-D); use HIPCXX and HIPFLAGS",
        _ROCM,
    ),
)

#: Variables that the driver reads or passes to the recipe. The recipe sets the others itself.
TAKEN_BY_PACKAGES = frozenset(
    {
        "BUILD_PREFIX",
        "CCACHE_DIR",
        "CHANNEL",
        "CMAKE_BUILD_PARALLEL_LEVEL",
        "CMAKE_CUDA_ARCHITECTURES",
        "CONDA_OVERRIDE_CUDA",
        "CONDA_PREFIX",
        "MAX_JOBS",
        "PATH",
        "PREFIX",
        "PYTORCH_ROCM_ARCH",
        "REUSE",
        "TMPDIR",
        "TORCH_CUDA_ARCH_LIST",
        "VERBOSE",
        "VLLM_BUILD_CACHE",
        "VLLM_DISABLE_CCACHE",
        "VLLM_FA_SET",
        "VLLM_PRECOMPILED_KEY",
        "VLLM_UNIT_TIMES",
        "XDG_CACHE_HOME",
    }
)
#: The similarity of two names that differ in one or two letters. The engine has many other
#: variables, but none is this close to one of the build.
_CLOSE = 0.92


def ignored(environ: Mapping[str, str], device: str | None = None) -> Iterator[str]:
    """A sentence for each set variable that has no effect on a build for ``device``.

    Args:
        environ: the variables.
        device: the device; None means any device.
    """
    for row in IGNORED:
        if device is None or not row.devices or device in row.devices:
            for name in row.names:
                if re.fullmatch(row.matters, environ.get(name, ""), re.DOTALL):
                    yield f"{name} has no effect here: {row.instead}"


def misspelt(environ: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each ``VLLM_`` variable that looks like a misspelt variable of the build."""
    ours = {
        variable.name
        for variable in build_settings.variables()
        if variable.name.startswith("VLLM_")
    }
    theirs = {name for row in IGNORED for name in row.names}
    for name in environ:
        if name.startswith("VLLM_") and name not in ours and name not in theirs:
            close = difflib.get_close_matches(name, sorted(ours), n=1, cutoff=_CLOSE)
            if close:
                yield f"{name} is not a variable of this build; did you mean {close[0]}?"


def not_for_packages(environ: Mapping[str, str]) -> Iterator[str]:
    """A sentence that lists the set variables without effect on packages, if there are any."""
    known = {variable.name for variable in build_settings.variables()} - TAKEN_BY_PACKAGES
    names = [name for name in environ if name in known and environ[name].strip()]
    if names:
        yield (
            "no effect on packages, which the recipe and the variant define: "
            f"{', '.join(sorted(names))}"
        )


_said: set[str] = set()


def warn(environ: Mapping[str, str], device: str | None = None) -> None:
    """Write warnings about the environment of a build to stderr, each once per process.

    In a conda build there are no warnings, because the recipe sets the environment.
    """
    if environ.get("CONDA_BUILD") == "1":
        return
    for sentence in (*ignored(environ, device), *misspelt(environ)):
        if sentence not in _said:
            _said.add(sentence)
            say(f"warning: {sentence}\n")
