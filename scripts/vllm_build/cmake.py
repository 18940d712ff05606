# SPDX-License-Identifier: Apache-2.0
"""Runs CMake and Ninja: finds them, composes stable command lines, shows progress, and on failure the one error that matters."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.errors import BuildError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vllm_build.settings import Settings

_PROGRESS = re.compile(r"^\[(\d+)/(\d+)\]")


def find_program(name: str) -> str:
    """The path of ``cmake`` or ``ninja``: beside this interpreter first (a virtual environment's bin), then on PATH.

    Raises:
        ToolchainError: it is in neither place.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() and os.access(beside, os.X_OK) else shutil.which(name)
    if not found:
        raise ToolchainError(f"{name} was not found", expected=f"{name} on PATH or in this environment", remedy=f"pip install {name}")
    return found


def compiler_launcher(settings: Settings, environ: Mapping[str, str]) -> str | None:
    """The compiler cache that fronts every compile (build contract, section 4); None when the user set one or none is installed."""
    if any(environ.get(f"CMAKE_{lang}_COMPILER_LAUNCHER") for lang in ("C", "CXX", "CUDA", "HIP")):
        return None
    if not settings.disable_sccache and (found := shutil.which("sccache")):
        return found
    if not settings.disable_ccache and (found := shutil.which("ccache")):
        return found
    return None


@dataclass
class Ran:
    """What one program said and did."""

    output: str
    seconds: float = 0.0


def _failure_excerpt(output: str) -> str:
    """The part of a build's output that explains its failure: the failing unit's first error with its context, not 400 lines of ninja."""
    lines = output.splitlines()
    failed = next((i for i, line in enumerate(lines) if line.startswith("FAILED:")), 0)
    for i in range(failed, len(lines)):
        if re.search(r"\b(fatal )?error\b|undefined reference|CMake Error", lines[i]):
            return "\n".join([*(lines[failed : failed + 1] if failed else []), *lines[i : i + 12]])
    return "\n".join(lines[-20:])


def run(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], what: str, verbose: bool) -> Ran:
    """Run ``command`` with its output passed on line by line.

    Raises:
        BuildError: it exited with another status than 0.
    """
    if verbose:
        sys.stderr.write("+ " + " ".join(command) + "\n")
    lines: list[str] = []
    with subprocess.Popen(
        command, cwd=cwd, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        if process.stdout is None:  # impossible with PIPE; tells the type checker so
            raise AssertionError
        for line in process.stdout:
            lines.append(line)
            if verbose or _PROGRESS.match(line) or line.startswith("--"):
                sys.stderr.write(line)
                sys.stderr.flush()
    output = "".join(lines)
    if process.returncode:
        raise BuildError(
            f"{what} failed (exit status {process.returncode})\n{_failure_excerpt(output)}", remedy="VERBOSE=1 shows every command"
        )
    return Ran(output)


def configure_command(source: Path, build: Path, definitions: Mapping[str, str], settings: Settings) -> list[str]:
    """The configure command: definitions sorted, the user's ``CMAKE_ARGS`` last."""
    command = [find_program("cmake"), "-S", str(source), "-B", str(build), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={find_program('ninja')}"]
    command += [f"-D{key}={value}" for key, value in sorted(definitions.items())]
    return command + list(settings.cmake_args)
