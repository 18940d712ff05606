# SPDX-License-Identifier: Apache-2.0
"""Puts the libraries and records of a package into a folder, all of them or none.

The new files are first copied beside their places. Then the old records go, the old libraries, the
new libraries come, and the new records
last: at no moment do libraries of two builds lie side by side, nor a record beside libraries that
it does not describe. An error puts everything back. A process that is killed in between leaves a
folder without some libraries, which says so when it is imported; the next run completes it.
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

#: Folder below ``vllm/`` for files on their way; a dot, so that nothing takes it for a package.
STAGING = ".vllm-build-"


def present(root: Path) -> list[Path]:
    """Records that lie below ``root/vllm`` now, and libraries that a build or a package put there; nobody else's.

    A library belongs to a build when a record lists it, or when it has the name of an extension of
    the table: a process that was killed may have removed the record.
    """
    package = root / "vllm"
    records = sorted((package / "_build_info").glob("*.json"))
    listed = {name for path in records for name in _listed(path)}
    modules = _modules(paths.source_root())
    found = [path for path in sorted(package.rglob("*.so")) if not _staged(path, package)]
    return [
        *records,
        *(
            p
            for p in found
            if p.relative_to(root).as_posix() in listed or p.name.partition(".")[0] in modules
        ),
    ]


def _modules(tree: Path) -> set[str]:
    """Names of the extensions that a source tree has; none where it is no whole tree."""
    if not (tree / kernels_table.TABLE).is_file():
        return set()
    return {extension.name.rpartition(".")[2] for extension in kernels_table.load(tree).extensions}


def _listed(path: Path) -> set[str]:
    """The libraries that a record names, of a build or of an official wheel; none where it cannot be read, as it goes in any case."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return set()
    return {name for name in re.findall(r'"([^"\\]+)"', text) if member_names.is_library(name)}


def _staged(path: Path, package: Path) -> bool:
    return any(part.startswith(STAGING) for part in path.relative_to(package).parts)


def place(files: Mapping[str, Path], root: Path) -> list[str]:
    """Make ``files`` the libraries and records below ``root/vllm``, and remove those of other builds.

    Args:
        files: from paths below ``root`` to the files that are copied there.
        root: the folder that holds ``vllm``.

    Returns:
        What changed: paths that were written or removed, sorted.

    Raises:
        ResourceError: the disk is full. The folder is as it was, as after any error.
    """
    package = root / "vllm"
    package.mkdir(parents=True, exist_ok=True)
    # In the cache: a lock in the folder would be packed with it.
    key = hashlib.sha256(str(package.resolve()).encode()).hexdigest()[:16]
    with locks.waiting(paths.cache_root() / "locks" / key):
        removal.remove_staging(package, STAGING)
        old = {path.relative_to(root).as_posix(): path for path in present(root)}
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


def _order(name: str) -> tuple[bool, str]:
    return member_names.output_of(name) is not None, name


def _swap(new: Mapping[str, Path], gone: Mapping[str, Path], root: Path, folder: Path) -> None:
    coming = {}
    for number, name in enumerate(sorted(new, key=_order)):
        coming[name] = folder / f"new-{number}"
        shutil.copyfile(new[name], coming[name])
        coming[name].chmod(0o755 if member_names.output_of(name) is None else 0o644)
    moved: list[tuple[Path, Path]] = []
    try:
        for number, name in enumerate(sorted(gone, key=_order, reverse=True)):
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
    # A rename: a library that is mapped into a running process is replaced, never overwritten.
    source.replace(target)
    moved.append((source, target))
