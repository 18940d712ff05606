# SPDX-License-Identifier: Apache-2.0
"""The folder of a store: whether publishing may use it, and the removal of unfinished files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.reuse.net.reuse_context import small_file
from vllm_build.reuse.stores import store_entry
from vllm_build.util import removal
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def require_store_or_empty(folder: Path) -> None:
    """Refuse a folder that is neither a store, nor new, nor empty.

    Raises:
        ConfigurationError: it is a file, a dangling link, or has other files.
    """
    if not folder.exists():
        if folder.is_symlink():
            raise ConfigurationError(
                f"{folder} is a symbolic link to {folder.readlink()}, which does not exist",
                expected="a store, or a new or empty folder",
                remedy="create the folder that the link points to, or name another with --store",
            )
        return
    if not folder.is_dir():
        raise ConfigurationError(
            f"{folder} is a file",
            expected="a store, or a new or empty folder",
            remedy="name another folder with --store",
        )
    if (folder / store_entry.MARKER).exists():
        return
    # A publisher creates the lock, and the marker under a temporary name, before the marker.
    others = sorted(
        path.name
        for path in folder.iterdir()
        if path.name != ".lock" and not path.name.startswith(f".{store_entry.MARKER}.")
    )
    if others:
        raise ConfigurationError(
            f"{folder} is not a store, and has other files: {removal.some(others)}",
            expected="a store, or a new or empty folder",
            remedy="name another folder with --store",
        )


def _is_store(folder: Path) -> bool:
    data = small_file(folder / store_entry.MARKER)
    if data is None:
        return False
    # Raises RefusedError if it is something else. The signer does not matter here.
    store_entry.check_marker(data, str(folder / store_entry.MARKER))
    return True


def remove_unfinished(folder: Path) -> None:
    """Remove what killed publishers left; the caller holds the store's lock.

    Raises:
        RefusedError: the folder is another kind of store.
    """
    removal.remove_tree(folder / "incoming", below=folder, proof=_is_store)
    for place in (folder, folder / "digests"):
        for path in (
            [path for path in place.iterdir() if store_entry.is_unfinished(path)]
            if place.is_dir()
            else []
        ):
            removal.remove_tree(path, below=folder, proof=_is_store)
