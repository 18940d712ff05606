# SPDX-License-Identifier: Apache-2.0
"""Folders whose names the tools of a build cannot handle, refused before work begins.

What we write ourselves is quoted; these are limits of others. Each was found by building in such a
folder: CMake takes ``;`` and brackets as syntax of its lists and ``$`` as a variable, the linker
splits ``-Wl,`` at commas, and the lists of dependencies that compilers write have no way to escape
some characters, so that everything is compiled again each time. Conda's build and host environments
lie below the output folder and the cache; scripts in them begin with the path of their interpreter,
which the kernel cuts at the first space.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

#: Control characters; what CMake, the linker and files of dependencies take as syntax. A colon ends
#: an entry of a search path: front ends pass the folder of the build backend in such a variable,
#: and do not find it.
_NOT_BUILT = re.compile(r"[\x00-\x1f\x7f$;:\"\\\[\],`*?<>|]|@.*@")
#: What make takes as syntax beside that.
_NOT_MADE = re.compile(r"[%#=]")
#: What paths in scripts, search paths, flags and activation scripts cannot hold: quotes are no help
#: in the first line of a script. Surrogates stand for bytes that are not UTF-8: rattler, and the
#: records that it writes, hold text.
_NOT_A_PREFIX = re.compile(r"[\s\x00-\x1f\x7f$;\"'\\\[\],`*?<>|:%#&(){}!\ud800-\udfff]")
#: Bytes. Object files lie in folders below, and CMake does not go beyond 1000.
_LONGEST_BUILT = 700
#: rattler-build fills the path of an environment up to 255 bytes; the name of the longest recipe
#: and its time stamp need the rest.
_LONGEST_PREFIX = 180


def _require(path: Path, what: str, pattern: re.Pattern[str], longest: int, remedy: str) -> None:
    text = str(path)
    if found := pattern.search(text):
        shown = "a space" if found[0] == " " else repr(found[0] if len(found[0]) == 1 else "@")
        if "\ud800" <= found[0] <= "\udfff":
            shown = "a byte that is not UTF-8"
        raise ConfigurationError(
            f"{what} {text!r} has {shown} in its path, which the tools of the build cannot handle",
            expected="a path of letters, digits and characters such as - _ . +",
            remedy=remedy,
        )
    if len(text.encode(errors="surrogateescape")) > longest:
        raise ConfigurationError(
            f"{what} {text!r} has a path of {len(text.encode(errors='surrogateescape'))} bytes",
            expected=f"at most {longest}",
            remedy=remedy,
        )


def require_buildable(root: Path, build_root: Path, *, make: bool = False) -> None:
    """Refuse a source tree or a folder of builds in which CMake, its generator, compilers or linkers would fail.

    Args:
        root: of the source tree.
        build_root: the folder that build folders are made in.
        make: make runs the compilers, not Ninja.

    Raises:
        ConfigurationError: one of them has such a path.
    """
    for path, what, remedy in (
        (root, "the source tree", "move the tree, or build in a copy of it"),
        (build_root, "the folder of builds", "set VLLM_BUILD_ROOT to another folder"),
    ):
        _require(path, what, _NOT_BUILT, _LONGEST_BUILT, remedy)
        if make:
            _require(
                path,
                what,
                _NOT_MADE,
                _LONGEST_BUILT,
                f"pip install ninja, which takes such paths, or {remedy}",
            )


def require_prefix(path: Path, what: str, remedy: str) -> None:
    """Refuse a folder that conda environments cannot lie in.

    Args:
        path: of the folder, absolute.
        what: it is, for the message.
        remedy: how to choose another.

    Raises:
        ConfigurationError: its path has a character that they cannot have, or is too long.
    """
    _require(path, what, _NOT_A_PREFIX, _LONGEST_PREFIX, remedy)


def require_packaging(output: Path, cache: Path) -> None:
    """Refuse an output folder or a cache that build and host environments cannot lie in.

    Raises:
        ConfigurationError: one of them is such a folder.
    """
    require_prefix(output.absolute(), "the output folder", "choose another one with --output")
    require_prefix(cache, "the cache", "set VLLM_BUILD_CACHE to another folder")
