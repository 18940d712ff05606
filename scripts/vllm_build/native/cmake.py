# SPDX-License-Identifier: Apache-2.0
"""Finds CMake, its generator and the compiler cache, and composes command lines that are the same in every build of a configuration."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.native import compiler_cache
from vllm_build.util.errors import ToolchainError
from vllm_build.util.processes import children, programs

if TYPE_CHECKING:
    from vllm_build.settings.build_settings import Settings

#: What CMakeLists.txt asks for.
MINIMUM = (3, 26)
MAKE = "Unix Makefiles"


def version_of(program: str) -> tuple[int, int] | None:
    """Major and minor version of a cmake; None when the program does not tell it."""
    try:
        done = children.run([program, "--version"])
    except OSError:
        return None
    match = re.match(r"cmake version ([0-9]+)\.([0-9]+)", done.stdout)
    return (int(match.group(1)), int(match.group(2))) if match and done.returncode == 0 else None


def find_cmake(search_path: str) -> str:
    """A cmake that is new enough: beside this interpreter, then every one in the folders of ``search_path``, which is spelled as PATH.

    Raises:
        ToolchainError: there is none; the message lists those that are too old.
    """
    folders = (search_path or os.defpath).split(os.pathsep)
    names = [
        Path(sys.executable).parent / "cmake",
        *(Path(folder) / "cmake" for folder in folders if folder),
    ]
    seen = []
    for path in dict.fromkeys(names):
        if path.is_file() and os.access(path, os.X_OK):
            version = version_of(str(path))
            if version is not None and version >= MINIMUM:
                return str(path)
            seen.append(
                f"{path} ({'.'.join(map(str, version)) if version else 'does not tell its version'})"
            )
    wanted = ".".join(map(str, MINIMUM))
    raise ToolchainError(
        f"no usable cmake was found{': ' + ', '.join(seen) if seen else ''}",
        expected=f"cmake >= {wanted} on PATH or in this environment",
        remedy=f"pip install 'cmake>={wanted}'",
    )


@dataclass(frozen=True)
class Generator:
    """What runs the compilers: CMake's name for it, and the program; the program is empty where CMake finds it by itself."""

    name: str
    program: str


def find_generator(settings: Settings) -> Generator:
    """The user's (``CMAKE_GENERATOR``), else Ninja when it is installed as a program or from PyPI, else make.

    Raises:
        ToolchainError: neither ninja nor make is there.
    """
    if settings.generator and settings.generator != "Ninja":
        return Generator(settings.generator, "")
    if ninja := programs.look_for("ninja"):
        return Generator("Ninja", ninja)
    if settings.generator is None and (
        make := programs.look_for("make") or programs.look_for("gmake")
    ):
        return Generator(MAKE, make)
    raise ToolchainError(
        "neither ninja nor make was found",
        expected="ninja on PATH or in this environment",
        remedy="pip install ninja",
    )


def runs_make(settings: Settings) -> bool:
    """Whether make will run the compilers; False where nothing is there yet that could, as a front end may still bring Ninja."""
    try:
        return find_generator(settings).name != "Ninja"
    except ToolchainError:
        return False


def launchers(settings: Settings) -> dict[str, str]:
    """Definitions for the compiler cache that fronts every compile (build contract, section 4).

    A language for which the user set ``CMAKE_<LANG>_COMPILER_LAUNCHER``, as a variable or in
    ``CMAKE_ARGS``, keeps that; the others get sccache, else ccache, unless they are disabled,
    absent or do not work; of the last a warning tells.
    """
    users = {
        "C": settings.c_launcher,
        "CXX": settings.cxx_launcher,
        "CUDA": settings.cuda_launcher,
        "HIP": settings.hip_launcher,
    }
    names = {f"CMAKE_{language}_COMPILER_LAUNCHER": chosen for language, chosen in users.items()}
    # CMake reads the variable by itself in a new build folder only; passed on, a changed one counts
    # in an old folder as well.
    ours = {
        name: chosen
        for name, chosen in names.items()
        if definition(settings.cmake_args, name) is None
    }
    # What the user names is not probed: when it does not work, the build says so.
    cache = None if all(ours.values()) else compiler_cache.found(settings)
    return {name: launcher for name, chosen in ours.items() if (launcher := chosen or cache)}


def definition(arguments: tuple[str, ...], name: str) -> str | None:
    """The value that ``-D<name>[:<type>]=<value>`` (or ``-D`` and the rest as two words) gives to a variable; the last one counts."""
    value = None
    for before, word in zip(("", *arguments), arguments, strict=False):
        text = word if before == "-D" else word.removeprefix("-D") if word.startswith("-D") else ""
        if match := re.fullmatch(rf"{re.escape(name)}(?::\w+)?=(.*)", text, re.DOTALL):
            value = match.group(1)
    return value
