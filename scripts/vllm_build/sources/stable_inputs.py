# SPDX-License-Identifier: Apache-2.0
"""Inputs from outside the source tree, under paths and times that stay the same between builds.

pip installs torch into a new temporary folder for every isolated build. If command lines contained
that folder, every unit would be compiled again and no compiler cache would hit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.util import removal
from vllm_build.util.errors import ToolchainError
from vllm_build.util.files import disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

#: The headers of libtorch's stable ABI and everything they include. A unit that includes another
#: header of torch does not compile.
TORCH_HEADERS = ("torch/headeronly", "torch/csrc/stable", "torch/csrc/inductor/aoti_torch")
#: A header of torch 2.10 to 2.13 that leaks each string argument of an op (pytorch/pytorch#190493).
#: Our ops take strings another way (``StringArgument``), the engine's do not.
_LEAKING = "torch/csrc/stable/stableivalue_conversions.h"
_LEAK = (
    (b"auto strptr = new std::string(data, length);", b"const std::string str(data, length);"),
    (b"return *strptr;", b"return str;"),
)


def without_leak(name: str, data: bytes) -> bytes:
    """The content of a header of torch whose strings do not leak; others are unchanged."""
    if name == _LEAKING and all(data.count(old) == 1 for old, _ in _LEAK):
        for old, new in _LEAK:
            data = data.replace(old, new)
    return data


def link(place: Path, target: Path) -> Path:
    """Make ``place`` a symbolic link to ``target``; returns ``place``.

    ``place`` is a path two levels below a build folder.

    Raises:
        ConfigurationError: ``place`` is a folder, and it is not in a build folder of ours.
    """
    if not place.is_symlink() or place.readlink() != target:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir() and not place.is_symlink():
            removal.remove_tree(place, below=place.parents[1])
        place.unlink(missing_ok=True)
        place.symlink_to(target)
    return place


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def mirror(
    source: Path,
    place: Path,
    folders: tuple[str, ...],
    *,
    change: Callable[[str, bytes], bytes] = lambda _, data: data,
    more: Mapping[str, bytes] | None = None,
    what: str = "the headers of torch >= 2.11",
) -> Path:
    """Make ``place`` a copy of ``folders`` of ``source``; returns ``place``.

    A file whose content is right already keeps its modification time.

    Args:
        source: the folder to copy from.
        place: the folder to copy to.
        folders: subfolders to copy, relative to both.
        change: maps a path relative to ``source`` and the file's content to the content to write.
        more: further files of the copy, by path relative to it.
        what: the description of ``source`` in messages

    Raises:
        ToolchainError: ``source`` lacks one of the folders.
        ResourceError: the disk is full.
    """
    if place.is_symlink():
        place.unlink()
    wanted: set[Path] = set()
    with disk_errors(place.parent):
        for folder in folders:
            if not (source / folder).is_dir():
                raise ToolchainError(
                    f"{source / folder} does not exist",
                    expected=what,
                    remedy="install or fetch them again",
                )
            for path in _files(source / folder):
                wanted.add(place / path.relative_to(source))
                data = change(path.relative_to(source).as_posix(), path.read_bytes())
                _write(place / path.relative_to(source), data)
        for name, data in (more or {}).items():
            wanted.add(place / name)
            _write(place / name, data)
        for path in list(_files(place)):
            if path not in wanted:
                path.unlink()
    return place


def _write(path: Path, data: bytes) -> None:
    """Write a file whose content differs."""
    if not path.is_file() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".new")
        temporary.write_bytes(data)
        temporary.replace(path)
