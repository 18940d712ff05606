# SPDX-License-Identifier: Apache-2.0
"""Audits a compiled library: limited API, libtorch's stable ABI, and the oldest usable glibc."""

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
    """The newest glibc version that an ELF file requires, such as (2, 29), or (0, 0)."""
    return glibc_of(elf.read(library))


def glibc_of(library: elf.SharedLibrary) -> tuple[int, int]:
    """The same as :func:`glibc_needed`, for a library that has been read."""
    matches = [_VERSION.match(version) for _, version in library.versions]
    return max(
        ((int(match.group(1)), int(match.group(2))) for match in matches if match), default=(0, 0)
    )


def compiler_comment(library: Path) -> str:
    """The compiler's identification in the file (section ``.comment``)."""
    return elf.read(library).comment


@dataclass(frozen=True)
class Finding:
    """The result of one check of one library."""

    library: str
    check: str
    good: bool
    text: str


#: Program and arguments of each check. The path of the library comes last.
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
            f"{name} is not installed next to {sys.executable}",
            expected="the tools of requirements/tools.txt; all of them run on Python >= 3.11",
            remedy="make test PYTHON=python3.11, after removing .venv",
        )
    return str(program)


def audit(library: Path, *, glibc: tuple[int, int]) -> tuple[Finding, ...]:
    """Run ``abi3audit`` and ``torch-abi-audit``, and check that ``glibc`` is new enough."""
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
    """The result of abi3audit for one library; None if abi3audit is not installed."""
    program = programs.look_for("abi3audit")
    return _run("abi3audit", program, library) if program else None


def where_installed(libraries: Sequence[Path], *, abi3: bool) -> tuple[Finding, ...]:
    """Run those of the two programs that are installed.

    abi3audit does not run for a library that uses the full API.
    """
    found = []
    for check in _CHECKS:
        program = programs.look_for(check)
        if program and (abi3 or check != "abi3audit"):
            found += [_run(check, program, library) for library in libraries]
    return tuple(found)


def require(findings: Iterable[Finding]) -> None:
    """Raise when a check failed.

    Raises:
        PackageTestError: a check failed; the message contains the output of every failed one.
    """
    bad = [finding for finding in findings if not finding.good]
    if bad:
        raise PackageTestError(
            "\n".join(f"{f.library}: {f.check}: {f.text}" for f in bad),
            expected="libraries for every supported Python and torch",
        )
