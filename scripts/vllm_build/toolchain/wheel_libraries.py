# SPDX-License-Identifier: Apache-2.0
"""Checks that the package of a wheel requires the shared libraries that the wheel lacks."""

from __future__ import annotations

import re
import zipfile
from typing import TYPE_CHECKING

from vllm_build.checks import elf, library_audit
from vllm_build.toolchain import wheel_table
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

#: glibc's libraries. Packages that need them require `__glibc`.
_GLIBC = re.compile(
    r"(libc|libm|libpthread|libdl|librt|libutil|libresolv|ld-linux-x86-64)\.so\.[0-9]"
)
_MAGIC = b"\x7fELF"


def is_glibc(library: str) -> bool:
    """Whether a shared library is a part of glibc, which every machine has."""
    return bool(_GLIBC.fullmatch(library))


def _libraries(wheel: Path) -> Iterator[tuple[str, elf.SharedLibrary]]:
    """The libraries and programs in a wheel, by their paths in it."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            with archive.open(name) as stream:
                start = stream.read(len(_MAGIC))
                if start == _MAGIC:
                    yield name, elf.parse(start + stream.read(), f"{name} in {wheel.name}")


def _glibc(run: Sequence[str]) -> tuple[int, int]:
    """The oldest glibc that the requirements allow; (0, 0) if they do not name glibc."""
    for requirement in run:
        if found := re.fullmatch(r"__glibc >=([0-9]+)\.([0-9]+)", requirement):
            return int(found[1]), int(found[2])
    return 0, 0


def complaints(downloaded: Path, run: Sequence[str], providers: Mapping[str, str]) -> list[str]:
    """What the package of a wheel needs and does not require, one clause each.

    Args:
        downloaded: the wheel.
        run: the run requirements of the package.
        providers: shared library -> the package that has it.

    Raises:
        BuildError: a library in the wheel is damaged.
    """
    found = dict(_libraries(downloaded))
    own = {name.rpartition("/")[2] for name in found} | {one.soname for one in found.values()}
    packages = {requirement.partition(" ")[0] for requirement in run}
    said: dict[str, None] = {}
    for name, library in found.items():
        for needed in library.needed:
            if needed in own or is_glibc(needed):
                continue
            package = providers.get(needed)
            if package is None:
                said[f"{name} needs {needed}, which neither the wheel nor [libraries] has"] = None
            elif package not in packages:
                said[f"{name} needs {needed}, which is in {package}"] = None
        if (oldest := library_audit.glibc_of(library)) > _glibc(run):
            said[f"{name} needs glibc {oldest[0]}.{oldest[1]}"] = None
    return list(said)


def require(
    wheel: wheel_table.Wheel, downloaded: Path, run: Sequence[str], providers: Mapping[str, str]
) -> None:
    """Check one wheel with :func:`complaints`.

    Raises:
        ConfigurationError: its package would not load on every machine.
        BuildError: a library in the wheel is damaged.
    """
    found = complaints(downloaded, run, providers)
    if found:
        raise ConfigurationError(
            f"{wheel.where}: {downloaded.name} needs what its package does not require:\n"
            + "\n".join(f"  {text}" for text in found),
            expected="requirements on the packages with these libraries, and on a glibc that is "
            "new enough",
            remedy=f"add the packages to `more` of {wheel.name}, and libraries that are not known "
            f"yet to [libraries] of {wheel_table.TABLE}",
        )
