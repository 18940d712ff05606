# SPDX-License-Identifier: Apache-2.0
"""Selects the files of a distribution that pip may take: wheels for an interpreter, or sdists."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Platform tags of wheels for glibc 2.31 (the channel's sysroot) and older. pip matches tags
#: literally, so every older one is listed.
_PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(31, 16, -1)),
    "manylinux2014_x86_64",
    *(f"manylinux_2_{minor}_x86_64" for minor in range(16, 4, -1)),
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
    "linux_x86_64",
)
#: The ABI tag of wheels without compiled code. It selects wheels for any platform.
PURE = "none"
#: A build backend that replaces the project's own, so that pip reads the metadata of an sdist
#: without running its code.
_SDIST_BACKEND = Path(__file__).with_name("sdist_backend")


@dataclass(frozen=True)
class Selection:
    """The files of a version that pip may take.

    Attributes:
        options: of ``pip download`` and ``pip install``.
        env: additions to pip's environment.
    """

    options: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


#: Source distributions. Without isolation pip takes the build backend from the path, where ours is
#: first, so no code of the project runs.
SDIST = Selection(
    ("--no-binary", ":all:", "--no-build-isolation"), {"PYTHONPATH": str(_SDIST_BACKEND)}
)


def select_wheels(python: str, abi: str | None) -> Selection:
    """Select wheels.

    Args:
        python: the version of the interpreter that they must fit.
        abi: the ABI tag, or ``None`` for the interpreter's default; ``PURE`` for wheels without
            compiled code only.
    """
    if abi == PURE:
        # A distribution may have compiled wheels as well, which pip would prefer.
        return Selection(
            (
                "--only-binary",
                ":all:",
                "--implementation",
                "cp",
                "--python-version",
                python,
                "--platform",
                "any",
                "--abi",
                PURE,
            )
        )
    options = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python]
    for platform in _PLATFORMS:
        options += ["--platform", platform]
    # Naming one ABI excludes all others, so the portable ones are named too. abi3 has no meaning
    # for a free-threaded interpreter.
    tags = () if abi is None else (abi, "none") if abi.endswith("t") else (abi, "abi3", "none")
    for tag in dict.fromkeys(tags):
        options += ["--abi", tag]
    return Selection(tuple(options))
