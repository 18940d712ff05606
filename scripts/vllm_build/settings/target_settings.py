# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF009 - `_var` declares fields, as `dataclasses.field` does
"""Variables that choose the device, the toolkit and the version of a build."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.version import Version

from vllm_build.settings.choices import CMAKE_ARCHS, CUDA_ARCHS, DEVICE, ROCM_ARCHS
from vllm_build.settings.value_kinds import EPOCH, FLAG, FOLDER, RELEASE, VERSION
from vllm_build.settings.variable import declare as _var

if TYPE_CHECKING:
    from pathlib import Path

_NONE: None = None


@dataclass(frozen=True)
class TargetSettings:
    """The device, the toolkit and the version of a build."""

    # Device and toolkits
    target_device: str | None = _var(
        "VLLM_TARGET_DEVICE",
        DEVICE,
        _NONE,
        "the flavour of the installed torch, else the toolkit that is found, else `cpu`",
        "The device to build for, in any case.",
    )
    cuda_home: Path | None = _var(
        "CUDA_HOME",
        FOLDER,
        _NONE,
        "`CUDA_PATH`, else nvcc on `PATH`, else a conda prefix or NVIDIA's wheels",
        "The CUDA toolkit.",
    )
    cuda_path: Path | None = _var(
        "CUDA_PATH", FOLDER, _NONE, "see `CUDA_HOME`", "The CUDA toolkit; `CUDA_HOME` comes first."
    )
    rocm_home: Path | None = _var(
        "ROCM_HOME",
        FOLDER,
        _NONE,
        "`ROCM_PATH`, else hipcc or ROCm's clang on `PATH`, else a conda prefix or `/opt/rocm`",
        "The ROCm installation.",
    )
    rocm_path: Path | None = _var(
        "ROCM_PATH",
        FOLDER,
        _NONE,
        "see `ROCM_HOME`",
        "The ROCm installation; `ROCM_HOME` comes first.",
    )
    sycl_home: Path | None = _var(
        "CMPLR_ROOT",
        FOLDER,
        _NONE,
        "icpx on `PATH`, else a conda prefix, else below `ONEAPI_ROOT`",
        "The oneAPI compiler, as oneAPI's `setvars.sh` sets it.",
    )
    oneapi_root: Path | None = _var(
        "ONEAPI_ROOT",
        FOLDER,
        _NONE,
        "`/opt/intel/oneapi`",
        "The oneAPI installation; its newest compiler is used.",
    )
    cuda_archs: str | None = _var(
        "TORCH_CUDA_ARCH_LIST",
        CUDA_ARCHS,
        _NONE,
        "all of the project's list that the toolkit supports",
        "CUDA architectures, such as `8.0;9.0a;10.0+PTX`.",
    )
    cmake_cuda_archs: str | None = _var(
        "CMAKE_CUDA_ARCHITECTURES",
        CMAKE_ARCHS,
        _NONE,
        "see `TORCH_CUDA_ARCH_LIST`",
        "CUDA architectures as CMake spells them; it is an error if they differ from those of "
        "`TORCH_CUDA_ARCH_LIST`.",
    )
    rocm_archs: str | None = _var(
        "PYTORCH_ROCM_ARCH",
        ROCM_ARCHS,
        _NONE,
        "all of the project's list that the toolkit supports",
        "ROCm architectures, such as `gfx90a;gfx942`.",
    )
    engine: bool = _var(
        "VLLM_ENGINE",
        FLAG,
        False,
        "`0`",
        "`1`: the wheel contains upstream's engine, from the sources that `vllm-build fetch vllm` "
        "put into the cache. Its version, requirements and commands are the engine's. Editable "
        "installs and source distributions are without it.",
    )
    # Version
    version_override: str | None = _var(
        "VLLM_VERSION_OVERRIDE",
        VERSION,
        _NONE,
        "`VERSION` and the device's suffix",
        "The version, verbatim, without a suffix.",
    )
    skip_version_suffix: bool = _var(
        "VLLM_SKIP_VERSION_SUFFIX",
        FLAG,
        False,
        "`0`",
        "`1`: the version has no suffix, as conda requires.",
    )
    version_suffix: bool = _var(
        "VLLM_VERSION_SUFFIX",
        FLAG,
        False,
        "`0`",
        "`1`: a wheel built from an unpacked source distribution has the device's suffix too. pip "
        "and uv refuse such a wheel if they build it from that distribution by name.",
    )
    main_cuda_version: Version = _var(
        "VLLM_MAIN_CUDA_VERSION",
        RELEASE,
        Version("13.0"),
        "`13.0`",
        "The CUDA release whose builds have no suffix.",
    )
    skip_precompiled_version_suffix: bool = _var(
        "VLLM_SKIP_PRECOMPILED_VERSION_SUFFIX",
        FLAG,
        False,
        "`0`",
        "`1`: a precompiled build has the suffix that a compiled one has.",
    )
    source_date: int | None = _var(
        "SOURCE_DATE_EPOCH",
        EPOCH,
        _NONE,
        "the time of the build",
        "The modification time that pip's build tools give the files in wheels and sdists. Conda "
        "packages use a fixed time and ignore it.",
    )
