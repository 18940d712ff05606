# SPDX-License-Identifier: Apache-2.0
"""Finds what makes a build private: flags and sources that the kernel digest does not cover.

The digest of a tree covers the sources, the table and the build library. Flags in the environment,
arguments for CMake and the user's own third-party sources change a library without changing the
tree. The record of such a build lists these influences, and its build digest differs, so a clean
tree never mistakes its libraries for its own.

Flags in the recipe do not count: they come from the compilers' packages, which the names of the
conda packages cover.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.digests.influence import Influence
from vllm_build.native import cmake, cmake_configure, highway_lookup
from vllm_build.sources import (
    cutlass,
    engine_kernels,
    flash_attention,
    folder_digest,
    plan_inputs,
)
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vllm_build.native.build_configuration import Configuration

#: Flags that CMake, compilers and linkers read.
_FLAGS = (
    "CPPFLAGS",
    "CFLAGS",
    "CXXFLAGS",
    "LDFLAGS",
    "CUDAFLAGS",
    "HIPFLAGS",
    "NVCC_PREPEND_FLAGS",
    "NVCC_APPEND_FLAGS",
)
#: Compilers. The program is not an influence, but the words after it are flags.
_COMPILERS = ("CC", "CXX", "CUDACXX", "CUDAHOSTCXX", "HIPCXX")
#: Folders that are searched before those of the build, and a CMake file that may do anything.
_PLACES = (
    *(
        "CPATH",
        "C_INCLUDE_PATH",
        "CPLUS_INCLUDE_PATH",
        "LIBRARY_PATH",
        "COMPILER_PATH",
        "GCC_EXEC_PREFIX",
    ),
    "CMAKE_TOOLCHAIN_FILE",
)
#: CMake variables that choose programs, or that the build takes into account elsewhere.
_NEUTRAL = re.compile(
    r"CMAKE_(BUILD_TYPE|MAKE_PROGRAM|PREFIX_PATH|EXPORT_COMPILE_COMMANDS|VERBOSE_MAKEFILE"
    r"|CUDA_ARCHITECTURES|HIP_ARCHITECTURES"
    r"|[A-Z]+_COMPILER|[A-Z]+_COMPILER_LAUNCHER)|hwy_DIR|hwy_ROOT"
)
#: CMake variables that name a folder of sources. Its content counts, not its path.
_FOLDERS = ("HIGHWAY_SRC_DIR", "CUTLASS_INCLUDE_DIR", "FLASH_ATTENTION_SRC_DIR")
_HOST_COMPILER = re.compile(r"(?<!\S)(-ccbin|--compiler-bindir)[= ]\S+")
#: A flag begins a word, or follows a prefix such as `-Xcompiler=`, `-Wc,` or a definition's `=`.
_ARCHITECTURE = re.compile(r"(?<![\w-])-m(?:arch|cpu)=([^\s,;\"']+)")
_EXTENSION = re.compile(
    r"(?<![\w-])(-m(?:3dnow|abm|adx|aes|amx|apx|avx|bmi|clmul|cx16|f16c|fma|gfni|lzcnt|mmx|movbe"
    r"|pclmul|popcnt|prfchw|rdrnd|rdseed|sha|sse3|sse4|ssse3|sve|tbm|vaes|vpclmul|xop|xsave)[\w.+-]*"
    r"|/arch:\w+|-x(?:Host|CORE|SSE|AVX)[\w.-]*|-ax[\w,-]+)"
)
#: Instruction sets of every processor of the platform. conda-forge's compilers use nocona.
_BASELINES = frozenset({"x86-64", "k8", "nocona", "armv8-a", "generic"})
_RESPONSE_FILE = re.compile(r"(?<!\S)@(\S+)")


def _with_files(text: str) -> str:
    """``text`` and the content of the response files that it names."""
    more = []
    for name in _RESPONSE_FILE.findall(text):
        path = Path(name)
        if path.is_file():
            more.append(path.read_text(encoding="utf-8", errors="replace"))
    return "\n".join([text, *more])


def _of_text(name: str, text: str) -> Influence:
    return Influence(
        name, text, hashlib.sha256(_with_files(text).encode(errors="surrogateescape")).hexdigest()
    )


def _of_folder(name: str, folder: Path) -> Influence:
    return Influence(name, str(folder), folder_digest.known_digest_of(folder))


def _flags(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name and flags of each variable that contains flags."""
    for name in _FLAGS:
        text = _HOST_COMPILER.sub(
            "", cmake_configure.without_run_paths(environ.get(name, ""))
        ).strip()
        if text:
            yield name, text
    for name in _COMPILERS:
        if words := _words(environ.get(name, ""))[1:]:
            yield name, " ".join(words)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def require_portable(config: Configuration) -> None:
    """Refuse flags that choose an instruction set.

    CPU kernels are compiled for several instruction sets and choose one at run time. A flag that
    raises the lowest one makes a library that ends with "illegal instruction" on other machines,
    and its name does not show that.

    Raises:
        ConfigurationError: a variable requires more than the platform's baseline.
    """
    for name, text in (
        *_flags(config.settings.inherited),
        *(("CMAKE_ARGS", argument) for argument in config.settings.cmake_args),
    ):
        everything = _with_files(text)
        above = [
            f"{match.group(0)}"
            for match in _ARCHITECTURE.finditer(everything)
            if match.group(1) not in _BASELINES
        ]
        if flags := [*above, *_EXTENSION.findall(everything)]:
            raise ConfigurationError(
                f"{name} contains {flags[0]}, which chooses an instruction set",
                expected="flags for every processor of the platform: kernels choose the "
                "instruction set at run time",
                remedy=f"remove {flags[0]} from {name}; VLLM_CPU_ISA limits the instruction set "
                "at run time",
            )


def _cmake_arguments(config: Configuration) -> Iterator[Influence]:
    arguments = iter(config.settings.cmake_args)
    for word in arguments:
        text = f"-D{next(arguments, '')}" if word == "-D" else word
        name = re.sub(r"^-D(\w+)(:\w+)?=.*", r"\1", text, flags=re.DOTALL)
        if name in _FOLDERS:
            folder = Path(text.partition("=")[2])
            yield _of_folder(name, folder) if folder.is_dir() else _of_text(name, text)
        elif not (text.startswith("-D") and _NEUTRAL.fullmatch(name)):
            yield _of_text("CMAKE_ARGS", text)


def _sources(config: Configuration) -> Iterator[Influence]:
    """The user's own sources, and a Highway other than the locked one."""
    settings, plan = config.settings, config.plan
    used = plan_inputs.needed(plan)
    if settings.cutlass_source and {cutlass.NAME, engine_kernels.CUTLASS} & set(used):
        yield _of_folder("VLLM_CUTLASS_SRC_DIR", settings.cutlass_source)
    if settings.flash_attention_source and flash_attention.NAME in used:
        yield _of_folder("VLLM_FLASH_ATTN_SRC_DIR", settings.flash_attention_source)
    if "hwy" not in plan.libraries:
        return
    if settings.highway_source:
        yield _of_folder("HIGHWAY_SRC_DIR", settings.highway_source)
        return
    found = highway_lookup.find(config)
    if "hwy_DIR" in found:
        installed = Path(found["hwy_DIR"])
        headers = installed.parents[2] / "include" / "hwy"
        yield _of_folder("hwy_DIR", headers if headers.is_dir() else installed)
    elif not found and cmake.definition(settings.cmake_args, "HIGHWAY_SRC_DIR") is None:
        yield _of_text("Highway", "the one that CMake finds")  # its content is unknown here


def influences(config: Configuration) -> tuple[Influence, ...]:
    """What makes a build of ``config`` private; empty if the tree describes it completely.

    Raises:
        IntegrityError: the locked sources were changed.
        OSError: a folder of sources cannot be read.
    """
    if (
        config.settings.recipe_build
        and config.settings.build_prefix
        and config.settings.host_prefix
    ):
        return ()
    env = config.settings.inherited
    found = [_of_text(name, text) for name, text in _flags(env)]
    found += [_of_text(name, env[name]) for name in _PLACES if env.get(name)]
    if config.build_type == "Debug":
        found.append(_of_text("CMAKE_BUILD_TYPE", config.build_type))
    return (*found, *_cmake_arguments(config), *_sources(config))
