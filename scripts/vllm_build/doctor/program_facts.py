# SPDX-License-Identifier: Apache-2.0
"""Facts about the interpreter, compilers, CMake, its generator and compiler caches."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from vllm_build.doctor.fact import Fact, contradiction, missing, of_error
from vllm_build.kernels import plan_resolver
from vllm_build.native import cmake
from vllm_build.util import paths
from vllm_build.util.errors import VllmBuildError
from vllm_build.util.processes import children

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_build.settings.build_settings import Settings
    from vllm_build.target.device import Target

_TIMEOUT = 60
_INSTALL = (
    "install a C++ compiler (g++ >= 12 or clang++ >= 16), or build in a conda environment "
    "that has one"
)
#: The compilers that CMake tries, in its order.
_USUAL = {"CC": ("cc", "gcc", "clang"), "CXX": ("c++", "g++", "clang++")}
_LANGUAGES = {"CC": "C compiler", "CXX": "C++ compiler"}


def _says(program: str) -> str | None:
    """The first line of the output of ``--version``; None if the program does not work."""
    try:
        done = children.run([program, "--version"], timeout=_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0] if lines and done.returncode == 0 else None


def _compiler(variable: str, asked: Settings) -> Fact:
    what, chosen = _LANGUAGES[variable], asked.inherited.get(variable, "").strip()
    try:
        words = shlex.split(chosen)
    except ValueError as error:
        return contradiction(
            what,
            f"{variable}={chosen!r} cannot be split into words: {error}",
            f"correct or unset {variable}",
        )
    if words:
        found = shutil.which(words[0], path=asked.search_path)
        if found is None:
            return contradiction(
                what,
                f"{variable}={chosen} is not a program",
                f"unset {variable}, or install that compiler",
            )
    else:
        found = next(
            (
                path
                for name in _USUAL[variable]
                if (path := shutil.which(name, path=asked.search_path))
            ),
            None,
        )
        if found is None:
            return missing(what, f"none of {', '.join(_USUAL[variable])} is on PATH", _INSTALL)
    said = _says(found)
    if said is None:
        return missing(what, f"{found} does not answer --version", _INSTALL)
    return Fact(what, f"{found}: {said}")


def _caches(asked: Settings) -> Fact:
    found = []
    for name, disabled in (("sccache", asked.disable_sccache), ("ccache", asked.disable_ccache)):
        path = shutil.which(name, path=asked.search_path)
        state = (
            f"{path}{f', disabled by VLLM_DISABLE_{name.upper()}' if disabled else ''}"
            if path
            else "none"
        )
        found.append(f"{name}: {state}")
    return Fact("compiler cache", f"{'; '.join(found)}; for package builds: {paths.ccache_dir()}")


def _generator(asked: Settings) -> Fact:
    try:
        generator = cmake.find_generator(asked)
    except VllmBuildError as error:
        return of_error("generator", error)
    return Fact(
        "generator", f"{generator.name}{f' ({generator.program})' if generator.program else ''}"
    )


def _cmake(asked: Settings) -> Fact:
    try:
        return Fact("cmake", cmake.find_cmake(asked.search_path))
    except VllmBuildError as error:
        return of_error("cmake", error)


def _needed(asked: Settings) -> Iterator[Fact]:
    yield _compiler("CC", asked)
    yield _compiler("CXX", asked)
    yield _cmake(asked)
    yield _generator(asked)


def examine(asked: Settings, target: Target) -> list[Fact]:
    """Facts about the programs of a build for ``target``.

    A device that compiles nothing needs none of them, so a missing one is no problem.
    """
    facts = [Fact("python", f"{sys.version.split()[0]} at {sys.executable}")]
    for fact in _needed(asked):
        if fact.problem and target.name in plan_resolver.PURE_DEVICES:
            facts.append(Fact(fact.what, f"{fact.found}; not needed for {target.name}"))
        else:
            facts.append(fact)
    return [*facts, _caches(asked)]
