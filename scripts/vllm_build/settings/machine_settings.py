# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF009 - `_var` declares fields, as `dataclasses.field` does
"""Variables that describe the machine: search paths, caches and channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.settings.choices import CHANNELS
from vllm_build.settings.value_kinds import (
    ABSOLUTE_FOLDER,
    DRIVER,
    FOLDER,
    LOCATIONS,
    OPTIONAL_FOLDER,
    PRESENT_FOLDER,
    SEARCH_PATH,
    choice,
)
from vllm_build.settings.variable import declare as _var

if TYPE_CHECKING:
    from pathlib import Path

    from packaging.version import Version

_NONE: None = None


@dataclass(frozen=True)
class MachineSettings:
    """Search paths, caches and channels."""

    # Where programs are looked for
    search_path: str = _var(
        "PATH",
        SEARCH_PATH,
        "",
        "no program is found",
        "The folders in which compilers and build programs are looked for.",
    )
    conda_prefix: Path | None = _var(
        "CONDA_PREFIX", FOLDER, _NONE, "none", "The active conda environment."
    )
    build_prefix: Path | None = _var(
        "BUILD_PREFIX", FOLDER, _NONE, "none", "The build environment of a conda build."
    )
    host_prefix: Path | None = _var(
        "PREFIX", FOLDER, _NONE, "none", "The host environment of a conda build."
    )
    # The driver
    cache: Path | None = _var(
        "VLLM_BUILD_CACHE",
        FOLDER,
        _NONE,
        "`$XDG_CACHE_HOME/vllm-build`, else `~/.cache/vllm-build`",
        "The cache for the toolchain channel, compiled units and extracted packages.",
    )
    cache_home: Path | None = _var(
        "XDG_CACHE_HOME",
        ABSOLUTE_FOLDER,
        _NONE,
        "`~/.cache`",
        "The folder in which programs keep their caches.",
    )
    temporary: Path | None = _var(
        "TMPDIR",
        PRESENT_FOLDER,
        _NONE,
        "`/tmp`",
        "The folder for temporary files of this library, compilers and other programs, in every "
        "build.",
    )
    channel: str | None = _var(
        "CHANNEL",
        choice(*CHANNELS),
        _NONE,
        "`local` if apt exists",
        "The channel that provides compilers and dependencies.",
    )
    reuse: tuple[str, ...] = _var(
        "REUSE",
        LOCATIONS,
        (),
        "none",
        "Conda channels whose packages are used if they are exactly those of this tree.",
    )
    ccache: Path | None = _var(
        "CCACHE_DIR",
        OPTIONAL_FOLDER,
        _NONE,
        "a folder of the cache",
        "The compiler cache of package builds.",
    )
    assumed_cuda: Version | None = _var(
        "CONDA_OVERRIDE_CUDA",
        DRIVER,
        _NONE,
        "the driver's",
        "The CUDA release for which an installation is solved on a machine without a driver.",
    )
