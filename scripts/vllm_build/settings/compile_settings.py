# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF009 - `_var` declares fields, as `dataclasses.field` does
"""Variables that control how kernels are compiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.settings.choices import BUILD_TYPES, COMPONENTS
from vllm_build.settings.value_kinds import (
    COUNT,
    DIGEST,
    FILE,
    FLAG,
    FOLDER,
    GENERATOR,
    TEXT,
    WORDS,
    choice,
    words_of,
)
from vllm_build.settings.variable import declare as _var

if TYPE_CHECKING:
    from pathlib import Path

_NONE: None = None


@dataclass(frozen=True)
class CompileSettings:
    """How kernels are compiled: jobs, CMake and compiler caches."""

    # Jobs
    max_jobs: int | None = _var(
        "MAX_JOBS",
        COUNT,
        _NONE,
        "as many as CPUs, their quota and memory allow",
        "The number of parallel compile jobs, before it is divided by nvcc's threads.",
    )
    nvcc_threads: int | None = _var(
        "NVCC_THREADS",
        COUNT,
        _NONE,
        "`1`",
        "Threads of each nvcc (CUDA >= 11.2); the number of jobs is divided by it.",
    )
    parallel_level: int | None = _var(
        "CMAKE_BUILD_PARALLEL_LEVEL",
        COUNT,
        _NONE,
        "see `MAX_JOBS`",
        "The number of parallel compile jobs, as CMake reads it; `MAX_JOBS` comes first.",
    )
    # CMake
    build_type: str | None = _var(
        "CMAKE_BUILD_TYPE",
        choice(*BUILD_TYPES),
        _NONE,
        "`Debug` with `--debug`, else `RelWithDebInfo`; `Release` in the recipe",
        "CMake's build type.",
    )
    generator: str | None = _var(
        "CMAKE_GENERATOR",
        GENERATOR,
        _NONE,
        "Ninja if it is found, else make",
        "The build tool for which CMake writes build files.",
    )
    cmake_args: tuple[str, ...] = _var(
        "CMAKE_ARGS",
        WORDS,
        (),
        "none",
        "Further arguments for CMake; they come last, so they take precedence.",
    )
    verbose: bool = _var(
        "VERBOSE", FLAG, False, "`0`", "`1`: show the command lines of compilers and linkers."
    )
    werror: bool = _var(
        "VLLM_WERROR", FLAG, False, "`0`; `1` in the recipe", "`1`: compiler warnings are errors."
    )
    build_root: Path | None = _var(
        "VLLM_BUILD_ROOT",
        FOLDER,
        _NONE,
        "`build/` in the tree",
        "The folder in which build folders, one per configuration, are kept between builds.",
    )
    unit_times: Path | None = _var(
        "VLLM_UNIT_TIMES",
        FILE,
        _NONE,
        "not recorded",
        "A file to which each compiled unit adds a line with its seconds and its memory.",
    )
    highway_source: Path | None = _var(
        "HIGHWAY_SRC_DIR",
        FOLDER,
        _NONE,
        "an installed Highway",
        "A tree of Highway's sources to build and link statically.",
    )
    components: tuple[str, ...] = _var(
        "VLLM_COMPONENTS",
        words_of(*COMPONENTS),
        (),
        "all",
        "The only outputs to compile, such as `vllm-kernels vllm-flash-attn`.",
    )
    cutlass_source: Path | None = _var(
        "VLLM_CUTLASS_SRC_DIR",
        FOLDER,
        _NONE,
        "the sources that `vllm-build fetch` downloaded",
        "A tree of CUTLASS, with its headers in `include`, to use instead of the locked one.",
    )
    flash_attention_set: str | None = _var(
        "VLLM_FA_SET",
        choice("check", "dev", "full"),
        _NONE,
        "FlashAttention is not built",
        "The FlashAttention kernels to build: `check` (one kernel of each version, which shows "
        "that they build and load), `dev` (heads of 64 and 128 elements), or `full` (32, 64, 96, "
        "128, 192, 256; version 3 without 32).",
    )
    kernels: str | None = _var(
        "VLLM_KERNELS",
        choice("own", "engine"),
        _NONE,
        "`own`; `engine` in the recipe for CUDA",
        "Whose kernels a build for CUDA compiles where there are two of a kind: this project's or "
        "those of the engine's locked sources.",
    )
    kernel_set: str | None = _var(
        "VLLM_KERNEL_SET",
        choice("check", "core", "full"),
        _NONE,
        "`full`",
        "The engine's kernels to build: `check` (a few of each kind, which shows that they build "
        "and load), `core` (what dense and MoE models call in bfloat16, float8, AWQ and GPTQ), or "
        "`full`.",
    )
    flash_attention_source: Path | None = _var(
        "VLLM_FLASH_ATTN_SRC_DIR",
        FOLDER,
        _NONE,
        "the sources that `vllm-build fetch` downloaded",
        "A tree of FlashAttention's sources to compile instead of the locked ones.",
    )
    kernel_digest: str | None = _var(
        "VLLM_KERNEL_DIGEST",
        DIGEST,
        _NONE,
        "not compared",
        "Expected kernel digest; the build fails on a mismatch.",
    )
    recipe_build: bool = _var(
        "VLLM_RECIPE_BUILD",
        FLAG,
        False,
        "`0`; `1` in the recipe",
        "`1` in a conda build: the flags in the environment come from packages that are part of "
        "the build's name, so they do not make the build private.",
    )
    # Compiler caches
    c_launcher: str | None = _var(
        "CMAKE_C_COMPILER_LAUNCHER",
        TEXT,
        _NONE,
        "sccache, else ccache, if they are found",
        "The program that runs the C compiler, such as a compiler cache.",
    )
    cxx_launcher: str | None = _var(
        "CMAKE_CXX_COMPILER_LAUNCHER",
        TEXT,
        _NONE,
        "as for C",
        "The program that runs the C++ compiler.",
    )
    cuda_launcher: str | None = _var(
        "CMAKE_CUDA_COMPILER_LAUNCHER", TEXT, _NONE, "as for C", "The program that runs nvcc."
    )
    hip_launcher: str | None = _var(
        "CMAKE_HIP_COMPILER_LAUNCHER",
        TEXT,
        _NONE,
        "as for C",
        "The program that runs the HIP compiler.",
    )
    disable_sccache: bool = _var(
        "VLLM_DISABLE_SCCACHE", FLAG, False, "`0`", "`1`: do not use sccache even if it is found."
    )
    disable_ccache: bool = _var(
        "VLLM_DISABLE_CCACHE", FLAG, False, "`0`", "`1`: do not use ccache even if it is found."
    )

    @property
    def jobs(self) -> tuple[int | None, str]:
        """The user's number of jobs, and the variable that sets it; None if neither is set."""
        if self.max_jobs is None and self.parallel_level is not None:
            return self.parallel_level, "CMAKE_BUILD_PARALLEL_LEVEL"
        return self.max_jobs, "MAX_JOBS"
