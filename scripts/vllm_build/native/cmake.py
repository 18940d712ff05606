# SPDX-License-Identifier: Apache-2.0
"""Finds CMake, its generator and the compiler cache, and reads definitions from ``CMAKE_ARGS``."""

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

#: The version that CMakeLists.txt requires.
MINIMUM = (3, 26)
MAKE = "Unix Makefiles"


def version_of(program: str) -> tuple[int, int] | None:
    """Major and minor version of a cmake; None if the program does not print one."""
    try:
        done = children.run([program, "--version"])
    except OSError:
        return None
    match = re.match(r"cmake version ([0-9]+)\.([0-9]+)", done.stdout)
    return (int(match.group(1)), int(match.group(2))) if match and done.returncode == 0 else None


def find_cmake(search_path: str) -> str:
    """Find a cmake that is new enough.

    The folder of this interpreter comes first, then those of ``search_path``, which has the format
    of PATH.

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
                f"{path} ({'.'.join(map(str, version)) if version else 'prints no version'})"
            )
    wanted = ".".join(map(str, MINIMUM))
    raise ToolchainError(
        f"no usable cmake was found{': ' + ', '.join(seen) if seen else ''}",
        expected=f"cmake >= {wanted} on PATH or in this environment",
        remedy=f"pip install 'cmake>={wanted}'",
    )


@dataclass(frozen=True)
class Generator:
    """The build program: CMake's name for it, and its path, which is empty if CMake finds it."""

    name: str
    program: str


def find_generator(settings: Settings) -> Generator:
    """The user's generator (``CMAKE_GENERATOR``), else Ninja, else make.

    Ninja may be a program on PATH or the package from PyPI.

    Raises:
        ToolchainError: neither ninja nor make was found.
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
    """Whether make will run the compilers.

    False if no build program was found, because a front end may still install Ninja.
    """
    try:
        return find_generator(settings).name != "Ninja"
    except ToolchainError:
        return False


def launchers(settings: Settings) -> dict[str, str]:
    """CMake definitions that put a compiler cache before every compile (build contract, section 4).

    If the user set ``CMAKE_<LANG>_COMPILER_LAUNCHER`` for a language, as a variable or in
    ``CMAKE_ARGS``, it stays. The other languages get sccache, else ccache, unless the program is
    disabled, missing or broken. A broken one causes a warning.
    """
    users = {
        "C": settings.c_launcher,
        "CXX": settings.cxx_launcher,
        "CUDA": settings.cuda_launcher,
        "HIP": settings.hip_launcher,
    }
    names = {f"CMAKE_{language}_COMPILER_LAUNCHER": chosen for language, chosen in users.items()}
    # CMake itself reads the variable only in a new build folder. Passing it on makes a change take
    # effect in an existing folder, too.
    ours = {
        name: chosen
        for name, chosen in names.items()
        if definition(settings.cmake_args, name) is None
    }
    # A launcher that the user names is not probed: if it does not work, the build fails.
    cache = None if all(ours.values()) else compiler_cache.found(settings)
    return {name: launcher for name, chosen in ours.items() if (launcher := chosen or cache)}


def definition(arguments: tuple[str, ...], name: str) -> str | None:
    """The value of the last ``-D<name>[:<type>]=<value>`` (one word or two) for a variable."""
    value = None
    for before, word in zip(("", *arguments), arguments, strict=False):
        text = word if before == "-D" else word.removeprefix("-D") if word.startswith("-D") else ""
        if match := re.fullmatch(rf"{re.escape(name)}(?::\w+)?=(.*)", text, re.DOTALL):
            value = match.group(1)
    return value
