# SPDX-License-Identifier: Apache-2.0
"""Removes folders, but only folders that this library made.

A folder that a user names (``--output``, ``VLLM_BUILD_CACHE``, the parent of a prefix) may contain
anything. The library removes something below such a folder only if the folder contains a marker,
the file :data:`MARKER`. :func:`claim` writes the marker into a folder that is new, is empty, or
contains only names that the library uses; it refuses every other folder. Symbolic links are removed
and never followed.

``CACHEDIR.TAG`` is not suitable as a marker: backup programs skip such folders, and people keep
their packages in an output folder.

``tests/build/test_removal.py`` checks that no other module removes a folder.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from vllm_build.util import paths
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.files import disk_errors, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

MARKER = ".vllm-build"
TEXT = "This folder was made by vllm-build, which replaces and removes files in it.\n"
_SHOWN = 3


def some(names: Sequence[str]) -> str:
    """The first three of ``names``, and the number of the others."""
    return ", ".join(names[:_SHOWN]) + (
        f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    )


def is_ours(folder: Path) -> bool:
    """Whether ``folder`` contains our marker as a regular file."""
    try:
        marker = folder / MARKER
        if not stat.S_ISREG(marker.lstat().st_mode):
            return False
        with marker.open("rb") as stream:
            return stream.read(len(TEXT)) == TEXT.encode()
    except OSError:
        return False


def claim(
    folder: Path, title: str, known: Collection[str] = (), proof: Collection[str] = ()
) -> None:
    """Create ``folder`` if necessary, and write the marker unless it is there already.

    Earlier versions wrote no marker. A folder of theirs is claimed if it contains only ``known``
    names and one of the ``proof`` paths.

    Args:
        folder: the folder that the user named.
        title: the purpose of the folder, with the option or variable that names it: "the output
            folder (--output)".
        known: patterns of the names that this library uses in such a folder.
        proof: paths below ``folder`` that no other program makes. If this is empty, any known name
            is proof.

    Raises:
        ConfigurationError: it is not a folder, or contains something that this library did not
            make.
        ResourceError: the disk is full.
    """
    if is_ours(folder):
        return
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(
            f"{folder}, {title}, is not a folder",
            expected="a folder, or a path where one can be created",
        )
    if folder.is_dir():
        names = sorted(
            entry.name for entry in folder.iterdir() if not entry.name.startswith(f".{MARKER}.")
        )
        others = [
            name for name in names if not any(fnmatchcase(name, pattern) for pattern in known)
        ]
        if others or (
            names and proof and not any(os.path.lexists(folder / path) for path in proof)
        ):
            raise ConfigurationError(
                f"{folder}, {title}, contains files that vllm-build did not make: "
                f"{some(others or names)}",
                expected="a folder that is new, empty, or made by vllm-build, which replaces and "
                "removes files in it",
                remedy="name another folder",
            )
    # A concurrent claim is harmless: it writes the same marker.
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / MARKER, TEXT)


#: The names in the cache folder, and the paths that prove that vllm-build made it.
_IN_CACHE = (
    "apt",
    "apt-*",
    "ccache",
    "channel",
    "downloads",
    "extracted",
    "locks",
    "rattler",
    "reuse",
    "sources",
    "verified",
    "work",
)
_CACHE_PROOF = (
    "apt/.lock",
    "channel/.lock",
    "channel/.builds",
    "downloads",
    "locks",
    "rattler/pkgs",
    "reuse",
    "sources/.lock",
    "verified",
)


def claim_cache(folder: Path | None = None) -> Path:
    """Claim the cache ``folder``, by default this user's; returns it.

    Raises:
        ConfigurationError, ResourceError: as for :func:`claim`.
    """
    folder = folder or paths.cache_root()
    claim(folder, "the cache folder (VLLM_BUILD_CACHE)", _IN_CACHE, _CACHE_PROOF)
    return folder


def _links_between(path: Path, below: Path) -> Iterator[Path]:
    return (folder for folder in path.parents if below in folder.parents and folder.is_symlink())


def remove_tree(path: Path, *, below: Path, proof: Callable[[Path], bool] = is_ours) -> None:
    """Remove ``path`` and everything below it; do nothing if it does not exist.

    A link is removed, but not its target. An entry that cannot be removed is an error, because a
    caller relies on the folder being empty.

    Args:
        path: a folder, a file or a link, under a name that this library uses.
        below: the folder that proves that ``path`` is ours: it contains the marker (see
            :func:`claim`).
        proof: checks ``below`` instead of looking for the marker; for folders that another document
            identifies, such as stores.

    Raises:
        ConfigurationError: ``below`` contains no marker, ``path`` does not lie below it, or there
            is a link between them.
        OSError: ``path`` cannot be removed.
    """
    path, below = Path(os.path.normpath(path)), Path(os.path.normpath(below))
    if not os.path.lexists(path):
        return
    if below not in path.parents or not proof(below):
        raise ConfigurationError(
            f"{path} is not removed: nothing in {below} shows that vllm-build made it",
            expected=f"the marker {MARKER} in {below}",
            remedy="name a folder that is new or empty, or remove the files yourself",
        )
    for link in _links_between(path, below):
        raise ConfigurationError(
            f"{path} is not removed: {link} is a link to {link.readlink()}",
            expected="a path without links",
            remedy="replace the link by a folder",
        )
    _remove(path)


def remove_claimed(folder: Path) -> None:
    """Remove ``folder`` if the marker is the only thing in it.

    Raises:
        OSError: another process put something into it.
    """
    if is_ours(folder) and [entry.name for entry in folder.iterdir()] == [MARKER]:
        (folder / MARKER).unlink()
        folder.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_staging(folder: Path, prefix: str) -> None:
    """Remove the folders with this name ``prefix`` that killed processes left in ``folder``.

    :func:`temporary` makes such folders. The caller holds the lock under which they are made.
    """
    for left in folder.glob(f"{prefix}*"):
        _remove(left)


@contextmanager
def temporary(folder: Path, prefix: str) -> Iterator[Path]:
    """A new folder in ``folder``, whose name begins with ``prefix``, for the block.

    It is removed at the end, unless the block has renamed it.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        made = Path(mkdtemp(dir=folder, prefix=prefix))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
