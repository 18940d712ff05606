# SPDX-License-Identifier: Apache-2.0
"""Refuses folders whose names the tools of a build cannot handle, before the build begins.

Our own code quotes paths; these are limits of other programs. Each was found by building in such a
folder:

- CMake parses ``;`` and brackets as list syntax and ``$`` as a variable.
- The linker splits ``-Wl,`` at commas.
- The dependency files of compilers cannot escape some characters, so that every build compiles
  everything.
- Conda's build and host environments lie below the output folder and the cache. Their scripts begin
  with the path of the interpreter, which the kernel cuts at the first space.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

#: Control characters, and the syntax of CMake, the linker and dependency files. A colon separates
#: the entries of a search path: front ends pass the folder of the build backend in such a variable
#: and would not find it.
_NOT_BUILT = re.compile(r"[\x00-\x1f\x7f$;:\"\\\[\],`*?<>|]|@.*@")
#: Further characters that make parses as syntax.
_NOT_MADE = re.compile(r"[%#=]")
#: Characters that break paths in scripts, search paths, flags and activation scripts. The first
#: line of a script cannot be quoted. Surrogates represent bytes that are not UTF-8; rattler and its
#: records can contain only text.
_NOT_A_PREFIX = re.compile(r"[\s\x00-\x1f\x7f$;\"'\\\[\],`*?<>|:%#&(){}!\ud800-\udfff]")
#: In bytes. Object files lie in folders below, and CMake's limit is 1000.
_LONGEST_BUILT = 700
#: In bytes. rattler-build pads the path of an environment to 255. The name of the longest recipe
#: and its time stamp need the difference.
_LONGEST_PREFIX = 180


def _require(path: Path, name: str, pattern: re.Pattern[str], longest: int, remedy: str) -> None:
    text = str(path)
    if found := pattern.search(text):
        shown = "a space" if found[0] == " " else repr(found[0] if len(found[0]) == 1 else "@")
        if "\ud800" <= found[0] <= "\udfff":
            shown = "a byte that is not UTF-8"
        raise ConfigurationError(
            f"{name} {text!r} has {shown} in its path, which the tools of the build cannot handle",
            expected="a path of letters, digits and characters such as - _ . +",
            remedy=remedy,
        )
    if len(text.encode(errors="surrogateescape")) > longest:
        raise ConfigurationError(
            f"{name} {text!r} has a path of {len(text.encode(errors='surrogateescape'))} bytes",
            expected=f"at most {longest}",
            remedy=remedy,
        )


def require_buildable(root: Path, build_root: Path, *, make: bool = False) -> None:
    """Refuse a source tree or build root in which CMake, Ninja, compilers or linkers would fail.

    Args:
        root: the root of the source tree.
        build_root: the folder that contains the build folders.
        make: make runs the compilers, not Ninja.

    Raises:
        ConfigurationError: one of the two has such a path.
    """
    for path, name, remedy in (
        (root, "the source tree", "move the tree, or build in a copy of it"),
        (build_root, "the folder of builds", "set VLLM_BUILD_ROOT to another folder"),
    ):
        _require(path, name, _NOT_BUILT, _LONGEST_BUILT, remedy)
        if make:
            _require(
                path,
                name,
                _NOT_MADE,
                _LONGEST_BUILT,
                f"pip install ninja, which accepts such paths, or {remedy}",
            )


def require_prefix(path: Path, name: str, remedy: str) -> None:
    """Refuse a folder that cannot contain conda environments.

    Args:
        path: the folder, absolute.
        name: the name of the folder in the message.
        remedy: how to choose another folder.

    Raises:
        ConfigurationError: its path has a forbidden character or is too long.
    """
    _require(path, name, _NOT_A_PREFIX, _LONGEST_PREFIX, remedy)


def require_packaging(output: Path, cache: Path) -> None:
    """Refuse an output folder or a cache that cannot contain build and host environments.

    Raises:
        ConfigurationError: one of the two is such a folder.
    """
    require_prefix(output.absolute(), "the output folder", "choose another one with --output")
    require_prefix(cache, "the cache", "set VLLM_BUILD_CACHE to another folder")
