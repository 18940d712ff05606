# SPDX-License-Identifier: Apache-2.0
"""Functions of all finders: find a compiler, run it for its version, check the oldest release."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from packaging.version import Version

from vllm_build.util.errors import ToolchainError
from vllm_build.util.processes import children
from vllm_build.util.redaction import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vllm_build.settings.build_settings import Settings

#: Seconds that a compiler may take to print its version. The first call over a network file system
#: may be slow, but a compiler that hangs must not hang the build.
TIMEOUT = 60
_NAMES = {"cuda": "CUDA", "rocm": "ROCm", "sycl": "oneAPI"}


@dataclass(frozen=True)
class Toolkit:
    """A toolkit whose compiler was found and works.

    Attributes:
        kind: ``cuda``, ``rocm`` or ``sycl``.
        version: its release, such as 12.9.
        root: the folder with its ``include`` and libraries; in a conda prefix
            ``targets/<platform>``.
        compiler: the path under which nvcc, hipcc or icpx was found.
        reason: why this toolkit was chosen, in words.
    """

    kind: str
    version: Version
    root: Path
    compiler: Path
    reason: str

    def __str__(self) -> str:
        return f"{_NAMES[self.kind]} {self.version} in {self.root} ({self.reason})"


@dataclass(frozen=True)
class Candidate:
    """A compiler that exists, and the reason for considering it."""

    compiler: Path
    reason: str


def is_program(path: Path) -> bool:
    """Whether ``path`` is a file that this user may run."""
    return path.is_file() and os.access(path, os.X_OK)


def named(
    variables: Sequence[tuple[str, Path | None]], programs: Sequence[str], toolkit: str
) -> Candidate | None:
    """The compiler of the first variable that is set.

    Args:
        variables: names and values; the first one that is set counts.
        programs: possible paths of the compiler, relative to the folder that a variable names.
        toolkit: the toolkit's name in messages.

    Raises:
        ToolchainError: the folder has no such program. Another toolkit must not silently replace
            the requested one.
    """
    for name, home in variables:
        if home is None:
            continue
        for program in programs:
            if is_program(path := Path(os.path.normpath(home / program))):
                return Candidate(path, f"{name}={home}")
        state = "does not exist" if not home.is_dir() else f"has no {programs[0]} that can be run"
        raise ToolchainError(
            f"{name}={home} {state}",
            expected=f"the folder of {toolkit}",
            remedy=f"set {name} to the folder that contains {programs[0]}, or unset it",
        )
    return None


def on_path(program: str, settings: Settings) -> Candidate | None:
    """The program that a shell would run; None if it is not on PATH."""
    found = shutil.which(program, path=settings.search_path)
    return Candidate(Path(found).absolute(), f"{program} on PATH") if found else None


def conda_prefixes(settings: Settings) -> list[tuple[str, Path]]:
    """The environments of a conda build, the active one, and a conda interpreter's own."""
    found = [
        ("BUILD_PREFIX", settings.build_prefix),
        ("PREFIX", settings.host_prefix),
        ("CONDA_PREFIX", settings.conda_prefix),
    ]
    if (Path(sys.prefix) / "conda-meta").is_dir():
        found.append(("this interpreter's environment", Path(sys.prefix)))
    return [(name, path) for name, path in found if path is not None]


def site_folders() -> list[Path]:
    """The folders into which pip installs for this interpreter, and its import path."""
    folders = [sysconfig.get_path("platlib"), sysconfig.get_path("purelib"), *sys.path]
    return list(dict.fromkeys(Path(folder) for folder in folders if folder))


def in_folders(
    folders: Iterator[tuple[str, Path]] | Sequence[tuple[str, Path]], program: str
) -> Candidate | None:
    """The first of ``folders`` (reason, folder) that has ``program``, a path relative to it."""
    for reason, folder in folders:
        if is_program(path := folder / program):
            return Candidate(path, f"{program.rpartition('/')[2]} in {reason} ({folder})")
    return None


def _broken(compiler: Path, problem: str, variable: str) -> NoReturn:
    raise ToolchainError(
        f"{compiler} {problem}",
        expected=f"'{compiler.name} --version' prints a release",
        remedy=f"repair that installation, set {variable} to another one, or choose a device that "
        "needs none (VLLM_TARGET_DEVICE=cpu)",
    )


def output_of(compiler: Path, arguments: Sequence[str], variable: str) -> str:
    """What ``compiler`` prints when it is called with ``arguments``.

    Args:
        compiler: the program.
        arguments: of a question that it answers at once, such as ``--version``.
        variable: what the remedy tells the user to set.

    Raises:
        ToolchainError: it cannot be run, fails or hangs.
    """
    question = " ".join(arguments)
    try:
        done = children.run([compiler, *arguments], timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        _broken(compiler, f"did not answer {question} within {TIMEOUT} s", variable)
    except OSError as error:
        _broken(compiler, f"cannot be run: {error.strerror}", variable)
    if done.returncode:
        said = (done.stdout.strip() or done.stderr.strip() or "nothing").splitlines()
        _broken(
            compiler,
            f"{question} failed with status {done.returncode}; it said: {excerpt(said[-1])}",
            variable,
        )
    return done.stdout or done.stderr


def ask(compiler: Path, pattern: str, variable: str) -> Version:
    """The version that ``compiler --version`` prints.

    Args:
        compiler: the program.
        pattern: a regular expression whose first group is the version.
        variable: the variable that the remedy names.

    Raises:
        ToolchainError: the compiler cannot be run, fails, hangs, or prints no version.
    """
    return version_in(output_of(compiler, ["--version"], variable), pattern, compiler, variable)


def version_in(printed: str, pattern: str, compiler: Path, variable: str) -> Version:
    """The version in ``printed``, which ``compiler --version`` printed; the rest is as for ``ask``.

    Raises:
        ToolchainError: there is no version in it.
    """
    if match := re.search(pattern, printed):
        return Version(match[1])
    said = (printed.strip() or "nothing").splitlines()
    _broken(compiler, f"--version printed no version; it said: {excerpt(said[0])}", variable)


def at_least(toolkit: Toolkit, floor: Version, variable: str) -> Toolkit:
    """Return ``toolkit`` if it is new enough.

    Raises:
        ToolchainError: it is older than ``floor``.
    """
    if toolkit.version < floor:
        raise ToolchainError(
            f"{toolkit} is too old",
            expected=f"{_NAMES[toolkit.kind]} {floor} or newer",
            remedy=f"install a newer one and set {variable}, or choose another device with "
            "VLLM_TARGET_DEVICE (cpu needs no toolkit)",
        )
    return toolkit
