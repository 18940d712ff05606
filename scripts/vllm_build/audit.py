# SPDX-License-Identifier: Apache-2.0
"""Proofs about a compiled library, from its bytes alone: limited API, libtorch's stable ABI, the oldest glibc that loads it."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from vllm_build.errors import PackageTestError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Iterable

_VERSION = re.compile(r"^GLIBC_(\d+)\.(\d+)(?:\.(\d+))?$")


def glibc_needed(library: Path) -> tuple[int, int]:
    """The newest glibc symbol version that the ELF file ``library`` asks for, such as (2, 29); (0, 0) when it asks for none."""
    newest = (0, 0)
    with library.open("rb") as stream:
        for section in ELFFile(stream).iter_sections():
            if not isinstance(section, GNUVerNeedSection):
                continue
            for _, auxiliaries in section.iter_versions():
                for auxiliary in auxiliaries:
                    if match := _VERSION.match(auxiliary.name):
                        newest = max(newest, (int(match.group(1)), int(match.group(2))))
    return newest


def compiler_comment(library: Path) -> str:
    """What the compiler wrote into the file about itself (section ``.comment``)."""
    with library.open("rb") as stream:
        section = ELFFile(stream).get_section_by_name(".comment")
        return section.data().replace(b"\0", b" ").decode(errors="replace").strip() if section is not None else ""


@dataclass(frozen=True)
class Finding:
    """The result of one check of one library."""

    library: str
    check: str
    good: bool
    text: str


def _program(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / name
    if not program.is_file():
        raise ToolchainError(
            f"{name} is not installed beside {sys.executable}",
            expected="the tools of requirements/tools.txt under Python >= 3.11, the oldest that all of them run on",
            remedy="make test PYTHON=python3.11, after removing .venv",
        )
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)


def audit(library: Path, *, glibc: tuple[int, int]) -> tuple[Finding, ...]:
    """All checks of one library: ``abi3audit``, ``torch-abi-audit``, and no glibc newer than ``glibc``."""
    name = library.name
    abi3 = _program("abi3audit", "--strict", "--summary", "--assume-minimum-abi3", "3.10", str(library))
    torch = _program("torch-abi-audit", "--check", "both", "--verbose", str(library))
    needed = glibc_needed(library)
    return (
        Finding(name, "abi3audit", abi3.returncode == 0, (abi3.stdout + abi3.stderr).strip()),
        Finding(name, "torch-abi-audit", torch.returncode == 0, (torch.stdout + torch.stderr).strip()),
        Finding(name, "glibc", needed <= glibc, f"needs glibc {needed[0]}.{needed[1]}, allowed {glibc[0]}.{glibc[1]}"),
    )


def require(findings: Iterable[Finding]) -> None:
    """Raise when a check failed.

    Raises:
        PackageTestError: with the words of every failed check.
    """
    bad = [finding for finding in findings if not finding.good]
    if bad:
        raise PackageTestError(
            "\n".join(f"{f.library}: {f.check}: {f.text}" for f in bad), expected="libraries for every Python and every torch"
        )
