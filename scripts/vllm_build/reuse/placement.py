# SPDX-License-Identifier: Apache-2.0
"""Puts the libraries and records of a package into a folder, all of them or none.

The new files are first copied into a staging folder. Then four steps follow: the old records are
removed, the old libraries are removed, the new libraries are added, and the new records are added.
So the folder never has libraries of two builds, nor a record of libraries that are not there. An
error restores the old state. A process that is killed in between leaves a folder without some
libraries; importing the package reports them, and the next run completes the folder.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.kernels import kernels_table
from vllm_build.reuse.records import member_names
from vllm_build.util import locks, paths, removal
from vllm_build.util.files import disk_errors, sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Prefix of the staging folder below ``vllm/``. The dot keeps it from being taken as a package.
STAGING = ".vllm-build-"


def find_present(root: Path) -> list[Path]:
    """The records below ``root/vllm``, and the libraries that belong to a build.

    A library belongs to a build if a record lists it, or if it has the name of an extension in the
    kernel table, because a killed process may have removed the record. Other libraries are left
    out.
    """
    package = root / "vllm"
    records = sorted((package / "_build_info").glob("*.json"))
    listed = {name for path in records for name in _listed_libraries(path)}
    modules = _extension_names(paths.source_root())
    found = [path for path in sorted(package.rglob("*.so")) if not _is_staged(path, package)]
    return [
        *records,
        *(
            p
            for p in found
            if p.relative_to(root).as_posix() in listed or p.name.partition(".")[0] in modules
        ),
    ]


def _extension_names(tree: Path) -> set[str]:
    """The names of a source tree's extensions; empty if the tree has no kernel table."""
    if not (tree / kernels_table.TABLE).is_file():
        return set()
    return {extension.name.rpartition(".")[2] for extension in kernels_table.load(tree).extensions}


def _listed_libraries(path: Path) -> set[str]:
    """The libraries that a record names; empty if it is unreadable, as it is replaced anyway."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return set()
    return {name for name in re.findall(r'"([^"\\]+)"', text) if member_names.is_library(name)}


def _is_staged(path: Path, package: Path) -> bool:
    return any(part.startswith(STAGING) for part in path.relative_to(package).parts)


def place(files: Mapping[str, Path], root: Path) -> list[str]:
    """Replace the libraries and records below ``root/vllm`` by ``files``.

    Args:
        files: path relative to ``root`` -> file to copy there.
        root: the folder that holds ``vllm``.

    Returns:
        The paths that were written or removed, sorted.

    Raises:
        ResourceError: the disk is full. After any error the folder is unchanged.
    """
    package = root / "vllm"
    package.mkdir(parents=True, exist_ok=True)
    # The lock is in the cache, because a lock in the folder would be packed with the package.
    key = hashlib.sha256(str(package.resolve()).encode()).hexdigest()[:16]
    with locks.waiting(paths.cache_root() / "locks" / key):
        removal.remove_staging(package, STAGING)
        old = {path.relative_to(root).as_posix(): path for path in find_present(root)}
        same = {
            name for name in files if name in old and sha256_of(old[name]) == sha256_of(files[name])
        }
        new = {name: path for name, path in files.items() if name not in same}
        gone = {name: path for name, path in old.items() if name not in same}
        if not new and not gone:
            return []
        with (
            disk_errors(package),
            tempfile.TemporaryDirectory(dir=package, prefix=STAGING) as folder,
        ):
            _swap(new, gone, root, Path(folder))
    return sorted({*new, *gone})


def _sort_key(name: str) -> tuple[bool, str]:
    return member_names.output_of(name) is not None, name


def _swap(new: Mapping[str, Path], gone: Mapping[str, Path], root: Path, folder: Path) -> None:
    coming = {}
    for number, name in enumerate(sorted(new, key=_sort_key)):
        coming[name] = folder / f"new-{number}"
        shutil.copyfile(new[name], coming[name])
        coming[name].chmod(0o755 if member_names.output_of(name) is None else 0o644)
    moved: list[tuple[Path, Path]] = []
    try:
        for number, name in enumerate(sorted(gone, key=_sort_key, reverse=True)):
            _move(gone[name], folder / f"old-{number}", moved)
        for name, file in coming.items():
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _move(file, target, moved)
    except BaseException:
        for source, target in reversed(moved):
            target.replace(source)
        raise


def _move(source: Path, target: Path, moved: list[tuple[Path, Path]]) -> None:
    # Renamed, not overwritten: a running process may have mapped the library.
    source.replace(target)
    moved.append((source, target))
