# SPDX-License-Identifier: Apache-2.0
"""Proofs about a compiled library, from its bytes alone: limited API, libtorch's stable ABI, the oldest glibc that loads it."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.checks import elf
from vllm_build.util.errors import PackageTestError, ToolchainError
from vllm_build.util.processes import children, programs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_VERSION = re.compile(r"^GLIBC_([0-9]+)\.([0-9]+)(?:\.([0-9]+))?$")


def glibc_needed(library: Path) -> tuple[int, int]:
    """The newest glibc symbol version that the ELF file ``library`` asks for, such as (2, 29); (0, 0) when it asks for none."""
    return glibc_of(elf.read(library))


def glibc_of(library: elf.SharedLibrary) -> tuple[int, int]:
    """The same of a library that has been read."""
    matches = [_VERSION.match(version) for _, version in library.versions]
    return max(
        ((int(match.group(1)), int(match.group(2))) for match in matches if match), default=(0, 0)
    )


def compiler_comment(library: Path) -> str:
    """What the compiler wrote into the file about itself (section ``.comment``)."""
    return elf.read(library).comment


@dataclass(frozen=True)
class Finding:
    """The result of one check of one library."""

    library: str
    check: str
    good: bool
    text: str


#: Program and arguments of each check; the library comes last.
_CHECKS = {
    "abi3audit": ("--strict", "--summary", "--assume-minimum-abi3", "3.10"),
    "torch-abi-audit": ("--check", "both", "--verbose"),
}


def _run(check: str, program: str, library: Path) -> Finding:
    done = children.run([program, *_CHECKS[check], str(library)])
    return Finding(library.name, check, done.returncode == 0, (done.stdout + done.stderr).strip())


def _installed(name: str) -> str:
    program = Path(sys.executable).parent / name
    if not program.is_file():
        raise ToolchainError(
            f"{name} is not installed beside {sys.executable}",
            expected="the tools of requirements/tools.txt under Python >= 3.11, the oldest that "
            "all of them run on",
            remedy="make test PYTHON=python3.11, after removing .venv",
        )
    return str(program)


def audit(library: Path, *, glibc: tuple[int, int]) -> tuple[Finding, ...]:
    """All checks of one library: ``abi3audit``, ``torch-abi-audit``, and no glibc newer than ``glibc``."""
    needed = glibc_needed(library)
    return (
        *(_run(check, _installed(check), library) for check in _CHECKS),
        Finding(
            library.name,
            "glibc",
            needed <= glibc,
            f"needs glibc {needed[0]}.{needed[1]}, allowed {glibc[0]}.{glibc[1]}",
        ),
    )


def limited_api(library: Path) -> Finding | None:
    """What abi3audit says of one library; None where this environment has no abi3audit."""
    program = programs.look_for("abi3audit")
    return _run("abi3audit", program, library) if program else None


def where_installed(libraries: Sequence[Path], *, abi3: bool) -> tuple[Finding, ...]:
    """The audits of a build: those of the two programs that this environment has; a full-API library is not asked about the limited one."""
    found = []
    for check in _CHECKS:
        program = programs.look_for(check)
        if program and (abi3 or check != "abi3audit"):
            found += [_run(check, program, library) for library in libraries]
    return tuple(found)


def require(findings: Iterable[Finding]) -> None:
    """Raise when a check failed.

    Raises:
        PackageTestError: with the words of every failed check.
    """
    bad = [finding for finding in findings if not finding.good]
    if bad:
        raise PackageTestError(
            "\n".join(f"{f.library}: {f.check}: {f.text}" for f in bad),
            expected="libraries for every Python and every torch",
        )
