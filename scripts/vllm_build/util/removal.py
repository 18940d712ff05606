# SPDX-License-Identifier: Apache-2.0
"""Removes folders, and only those that this library made.

A folder that a user names (``--output``, ``VLLM_BUILD_CACHE``, the parent of a prefix) may hold
anything. Before the library removes something below such a folder, the folder must carry a marker,
the file :data:`MARKER`. :func:`claim` writes it into a folder that is new, empty, or holds nothing
but names that the library gives; it refuses every other folder. Symbolic links are removed and
never followed.

``CACHEDIR.TAG`` would not do as a marker: backup programs leave such folders out, and people keep
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
    """The first few of ``names``, and how many more there are."""
    return ", ".join(names[:_SHOWN]) + (
        f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    )


def is_ours(folder: Path) -> bool:
    """Whether ``folder`` carries our marker, as a regular file."""
    try:
        marker = folder / MARKER
        if not stat.S_ISREG(marker.lstat().st_mode):
            return False
        with marker.open("rb") as stream:
            return stream.read(len(TEXT)) == TEXT.encode()
    except OSError:
        return False


def claim(
    folder: Path, what: str, known: Collection[str] = (), proof: Collection[str] = ()
) -> None:
    """Make ``folder`` ours: create it and write the marker, unless it carries the marker already.

    Earlier versions wrote no marker. What they made is taken over: a folder that holds nothing but
    ``known`` names, and one of ``proof``.

    Args:
        folder: what the user named.
        what: the folder's purpose in words, and what the user calls it: "the output folder
            (--output)".
        known: patterns of names that this library gives to entries of such a folder.
        proof: paths below ``folder`` that no other program makes; where there are none, any known
            name proves it.

    Raises:
        ConfigurationError: it is no folder, or holds something that this library did not make.
            ResourceError: the disk is full.
    """
    if is_ours(folder):
        return
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(
            f"{folder}, {what}, is not a folder",
            expected="a folder, or a path where one can be made",
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
                f"{folder}, {what}, holds files that vllm-build did not make: "
                f"{some(others or names)}",
                expected="a folder that is new, empty, or made by vllm-build: files in it are "
                "replaced and removed",
                remedy="name another folder",
            )
    # A process that claims it at the same time writes the same.
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / MARKER, TEXT)


#: What is in the cache folder, and which of it shows that vllm-build made the folder.
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
    """Claim the cache folder, that of this user unless another is given; returns it.

    Raises:
        ConfigurationError, ResourceError: as :func:`claim`.
    """
    folder = folder or paths.cache_root()
    claim(folder, "the cache folder (VLLM_BUILD_CACHE)", _IN_CACHE, _CACHE_PROOF)
    return folder


def _links_between(path: Path, below: Path) -> Iterator[Path]:
    return (folder for folder in path.parents if below in folder.parents and folder.is_symlink())


def remove_tree(path: Path, *, below: Path, proof: Callable[[Path], bool] = is_ours) -> None:
    """Remove ``path`` with all that it holds; nothing happens where there is nothing.

    A link is removed, not what it leads to. What cannot be removed is an error: a caller that
    empties a folder relies on that.

    Args:
        path: a folder, a file or a link, at a name that this library gives.
        below: the folder that proves that ``path`` is ours: it carries the marker (see
            :func:`claim`).
        proof: tells whether ``below`` does, for folders with a document of their own, such as
            stores.

    Raises:
        ConfigurationError: ``below`` carries no marker, ``path`` does not lie below it, or a link
            lies between them.
        OSError: it cannot be removed.
    """
    path, below = Path(os.path.normpath(path)), Path(os.path.normpath(below))
    if not os.path.lexists(path):
        return
    if below not in path.parents or not proof(below):
        raise ConfigurationError(
            f"{path} is not removed: {below} does not say that vllm-build made it",
            expected=f"{MARKER} of vllm-build in {below}",
            remedy="name a folder that is new or empty, or remove the files yourself",
        )
    for link in _links_between(path, below):
        raise ConfigurationError(
            f"{path} is not removed: {link} is a link to {link.readlink()}",
            expected="folders",
            remedy="replace the link by a folder",
        )
    _remove(path)


def remove_claimed(folder: Path) -> None:
    """Remove a folder that carries the marker, when nothing else is left in it.

    Raises:
        OSError: it holds something else.
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
    """Remove what a killed process left of :func:`temporary` below ``folder``, by the prefix of its name.

    The caller holds the lock under which such folders are made.
    """
    for left in folder.glob(f"{prefix}*"):
        _remove(left)


@contextmanager
def temporary(folder: Path, prefix: str) -> Iterator[Path]:
    """A new folder below ``folder``, with a name that begins with ``prefix``; removed at the end, unless the block has renamed it."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        made = Path(mkdtemp(dir=folder, prefix=prefix))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
