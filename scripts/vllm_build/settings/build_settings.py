# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF009 - `_var` declares fields, as `dataclasses.field` does; nothing mutable is
# shared
"""The build's environment variables, read once into one typed, frozen object.

The fields of :class:`Settings` are the one table of variables: type, default and documentation of
each; ``docs/settings.md`` and ``vllm-build settings`` are made from it. An empty variable counts as
unset. A malformed value is a configuration error that names the
variable: a build that silently ignores what it was told is worse than one that stops.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.version import Version

from vllm_build.settings.choices import (
    BUILD_TYPES,
    CHANNELS,
    CMAKE_ARCHS,
    COMPONENTS,
    CUDA_ARCHS,
    DEVICE,
    ROCM_ARCHS,
)
from vllm_build.settings.value_kinds import (
    ABSOLUTE_FOLDER,
    COUNT,
    DIGEST,
    DRIVER,
    EPOCH,
    FILE,
    FLAG,
    FOLDER,
    GENERATOR,
    LOCATION,
    LOCATIONS,
    OPTIONAL_FOLDER,
    PRESENT_FOLDER,
    RELEASE,
    SEARCH_PATH,
    SHA256,
    TEXT,
    VERSION,
    WORDS,
    choice,
    words_of,
)
from vllm_build.settings.variable import SECTIONS, Variable
from vllm_build.settings.variable import declare as _var
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_NONE: None = None


@dataclass(frozen=True)
class Settings:
    """What the environment asks of a build; ``Settings()`` is an empty environment.

    Each field's variable is documented beside it.
    """

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
        "`ROCM_PATH`, else hipcc on `PATH`, else a conda prefix or `/opt/rocm`",
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
        "The oneAPI installation; its newest compiler is taken.",
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
        "CUDA architectures as CMake spells them; an error when it disagrees with "
        "`TORCH_CUDA_ARCH_LIST`.",
    )
    rocm_archs: str | None = _var(
        "PYTORCH_ROCM_ARCH",
        ROCM_ARCHS,
        _NONE,
        "all of the project's list that the toolkit supports",
        "ROCm architectures, such as `gfx90a;gfx942`.",
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
        "`1`: the base version as it is, as conda needs it.",
    )
    version_suffix: bool = _var(
        "VLLM_VERSION_SUFFIX",
        FLAG,
        False,
        "`0`",
        "`1`: a wheel built from an unpacked source distribution has the device's suffix too; pip "
        "and uv refuse such a wheel where they "
        "build from that distribution by name.",
    )
    main_cuda_version: Version = _var(
        "VLLM_MAIN_CUDA_VERSION",
        RELEASE,
        Version("13.0"),
        "`13.0`",
        "The CUDA release whose builds carry no suffix.",
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
        "The time of the files inside of wheels and sdists, by pip's build tools. Conda packages "
        "carry a fixed time and ignore it.",
    )
    # Jobs
    max_jobs: int | None = _var(
        "MAX_JOBS",
        COUNT,
        _NONE,
        "what CPUs, their quota and memory allow",
        "Compile jobs at once, before nvcc's threads divide them.",
    )
    nvcc_threads: int | None = _var(
        "NVCC_THREADS",
        COUNT,
        _NONE,
        "`1`",
        "Threads of each nvcc (CUDA >= 11.2); divides the jobs.",
    )
    parallel_level: int | None = _var(
        "CMAKE_BUILD_PARALLEL_LEVEL",
        COUNT,
        _NONE,
        "see `MAX_JOBS`",
        "Compile jobs at once, as CMake reads it; `MAX_JOBS` comes first.",
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
        "Ninja where it is found, else make",
        "What CMake writes build files for.",
    )
    cmake_args: tuple[str, ...] = _var(
        "CMAKE_ARGS", WORDS, (), "none", "More arguments for CMake; they go last, so they win."
    )
    verbose: bool = _var("VERBOSE", FLAG, False, "`0`", "`1`: show command lines.")
    werror: bool = _var(
        "VLLM_WERROR", FLAG, False, "`0`; `1` in the recipe", "`1`: compiler warnings are errors."
    )
    build_root: Path | None = _var(
        "VLLM_BUILD_ROOT",
        FOLDER,
        _NONE,
        "`build/` in the tree",
        "Where build folders, one per configuration, are kept between calls.",
    )
    unit_times: Path | None = _var(
        "VLLM_UNIT_TIMES",
        FILE,
        _NONE,
        "not kept",
        "A file that gets a line for each unit that is compiled: its seconds and its memory.",
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
        "The outputs to compile, such as `vllm-kernels vllm-flash-attn`; the others are left out.",
    )
    cutlass_source: Path | None = _var(
        "VLLM_CUTLASS_SRC_DIR",
        FOLDER,
        _NONE,
        "what `vllm-build fetch` brought",
        "A tree of CUTLASS, with its headers in `include`, to compile with instead of the locked "
        "one.",
    )
    flash_attention_set: str | None = _var(
        "VLLM_FA_SET",
        choice("check", "dev", "full"),
        _NONE,
        "FlashAttention is not built",
        "What FlashAttention is built for: `check` (one kernel of each version, which shows that "
        "they build and load), `dev` (heads of 64 "
        "and 128 elements), or `full` (32, 64, 96, 128, 192, 256; version 3 without 32).",
    )
    flash_attention_source: Path | None = _var(
        "VLLM_FLASH_ATTN_SRC_DIR",
        FOLDER,
        _NONE,
        "what `vllm-build fetch` brought",
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
        "`1` in a conda build: the environment's flags come from packages that the build's name "
        "covers, so they do not make it private.",
    )
    # Compiler caches
    c_launcher: str | None = _var(
        "CMAKE_C_COMPILER_LAUNCHER",
        TEXT,
        _NONE,
        "sccache, else ccache, where they are found",
        "The program in front of the C compiler.",
    )
    cxx_launcher: str | None = _var(
        "CMAKE_CXX_COMPILER_LAUNCHER",
        TEXT,
        _NONE,
        "as for C",
        "The program in front of the C++ compiler.",
    )
    cuda_launcher: str | None = _var(
        "CMAKE_CUDA_COMPILER_LAUNCHER", TEXT, _NONE, "as for C", "The program in front of nvcc."
    )
    hip_launcher: str | None = _var(
        "CMAKE_HIP_COMPILER_LAUNCHER",
        TEXT,
        _NONE,
        "as for C",
        "The program in front of the HIP compiler.",
    )
    disable_sccache: bool = _var(
        "VLLM_DISABLE_SCCACHE", FLAG, False, "`0`", "`1`: do not use sccache when it is found."
    )
    disable_ccache: bool = _var(
        "VLLM_DISABLE_CCACHE", FLAG, False, "`0`", "`1`: do not use ccache when it is found."
    )
    # Precompiled kernels
    use_precompiled: bool = _var(
        "VLLM_USE_PRECOMPILED",
        FLAG,
        False,
        "`0`",
        "`1`: take the kernels from a build of this very source.",
    )
    precompiled_location: str | None = _var(
        "VLLM_PRECOMPILED_WHEEL_LOCATION",
        LOCATION,
        _NONE,
        "a lookup by build digest",
        "A wheel or `.conda` file, path or URL; implies reuse.",
    )
    precompiled_sha256: str | None = _var(
        "VLLM_PRECOMPILED_SHA256", SHA256, _NONE, "not compared", "The sha256 that file must have."
    )
    precompiled_stores: tuple[str, ...] = _var(
        "VLLM_PRECOMPILED_STORES",
        LOCATIONS,
        (),
        "none",
        "Folders, http(s) indexes and conda channels to look the build digest up in.",
    )
    precompiled_key: Path | None = _var(
        "VLLM_PRECOMPILED_KEY",
        FILE,
        _NONE,
        "stores that declare no signer",
        "The signer's public key, PEM: every store must be signed with it, and what is not signed "
        "is refused.",
    )
    precompiled_partial: bool = _var(
        "VLLM_PRECOMPILED_PARTIAL",
        FLAG,
        False,
        "`0`",
        "`1`: compile the outputs that no store has, instead of refusing.",
    )
    precompiled_private: bool = _var(
        "VLLM_PRECOMPILED_PRIVATE",
        FLAG,
        False,
        "`0`: refused",
        "`1`: accept kernels that were built from these sources with flags or third-party sources "
        "of somebody's own.",
    )
    precompiled_foreign: str = _var(
        "VLLM_PRECOMPILED_FOREIGN",
        choice("0", "1", "incomplete"),
        "0",
        "`0`: refused",
        "`1`: the file may be an official wheel of vLLM, which is audited; `incomplete`: one that "
        "lacks ops as well.",
    )
    netrc: str = _var(
        "NETRC",
        TEXT,
        "",
        "`~/.netrc`",
        "The file with names and passwords for servers that kernels are fetched from.",
    )
    # Where programs are looked for
    search_path: str = _var(
        "PATH", SEARCH_PATH, "", "nothing is found", "Folders of compilers and build programs."
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
        "The cache of toolchain channel, compiler cache and extracted packages.",
    )
    cache_home: Path | None = _var(
        "XDG_CACHE_HOME", ABSOLUTE_FOLDER, _NONE, "`~/.cache`", "Where programs keep their caches."
    )
    temporary: Path | None = _var(
        "TMPDIR",
        PRESENT_FOLDER,
        _NONE,
        "`/tmp`",
        "Where this library, compilers and other programs keep temporary files, in every build.",
    )
    channel: str | None = _var(
        "CHANNEL",
        choice(*CHANNELS),
        _NONE,
        "`local` where apt exists",
        "Where compilers and dependencies come from.",
    )
    reuse: tuple[str, ...] = _var(
        "REUSE",
        LOCATIONS,
        (),
        "none",
        "Conda channels whose packages are taken where they are exactly those of this tree.",
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
        "The CUDA release that an installation is solved for, where no driver tells it.",
    )
    # No variable of the build: all that this process was given, which compilers and other programs
    # start from. It may hold passwords.
    inherited: Mapping[str, str] = dataclasses.field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def jobs(self) -> tuple[int | None, str]:
        """The number of jobs that the user chose, and the variable that says so; None when neither variable does."""
        if self.max_jobs is None and self.parallel_level is not None:
            return self.parallel_level, "CMAKE_BUILD_PARALLEL_LEVEL"
        return self.max_jobs, "MAX_JOBS"

    @property
    def precompiled(self) -> bool:
        """Whether kernels are reused, not compiled: asked for, or implied by a location."""
        return self.use_precompiled or self.precompiled_location is not None

    @property
    def accepts_foreign(self) -> bool:
        """Whether an official wheel may stand in for a build of this tree."""
        return self.precompiled_foreign != "0"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read ``environ``, which is kept whole as ``inherited``.

        Raises:
            ConfigurationError: values are malformed; the message names all of them.
        """
        require(environ)
        values = ((variable.field, variable.read(environ)) for variable in variables())
        return cls(
            **{field: value for field, value in values if value is not None},
            inherited=dict(environ),
        )


def variables() -> Iterator[Variable]:
    """Every variable of the build, in the order of the documentation."""
    section = ""
    for field in dataclasses.fields(Settings):
        if "variable" not in field.metadata:
            continue
        section = SECTIONS.get(field.name, section)
        name, kind, default, doc = field.metadata["variable"]
        yield Variable(name, field.name, section, kind, default, doc)


def problems(environ: Mapping[str, str]) -> list[ConfigurationError]:
    """Every malformed variable, an error for each."""
    found = []
    for variable in variables():
        try:
            variable.read(environ)
        except ConfigurationError as error:
            found.append(error)
    return found


def require(environ: Mapping[str, str]) -> None:
    """Refuse an environment in which a variable is malformed, with one message that names all of them.

    Raises:
        ConfigurationError: there are some.
    """
    found = problems(environ)
    if len(found) == 1:
        raise found[0]
    if found:
        listed = "\n".join(f"    {error.message}; expected: {error.expected}" for error in found)
        raise ConfigurationError(
            f"{len(found)} environment variables are not valid:\n{listed}",
            expected="values as docs/settings.md lists them",
            remedy="correct these variables, or unset them; vllm-build settings shows all of them",
        )
