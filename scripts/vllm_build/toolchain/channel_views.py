# SPDX-License-Identifier: Apache-2.0
"""Views: the part of the shared channel that one source tree sees.

All checkouts of a user share one pool of packages. A package's name contains the digest of its
inputs, so the pool can keep the packages of any number of trees. A solver would mix them, because
it chooses by version and build number. So each state of a tree has a view: a channel whose folder
is named after the digests of all builds of that tree, whose index lists exactly its packages, and
whose files are hard links into the pool. Only ``clean`` removes anything, and it refuses to run
while a process builds or installs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.packing import channel_index
from vllm_build.toolchain import channel_records, toolchain_builds, toolchain_lock
from vllm_build.toolchain.channel_digests import build_digests, combined
from vllm_build.util import locks, removal
from vllm_build.util.files import disk_errors
from vllm_build.util.paths import cache_root, rattler_cache, toolchain_channel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

_WHAT = "the toolchain channel"
#: The modification time of this file is the time when the view was last used.
_USED = ".used"
_DAY = 86_400.0
#: Seconds that a build or an installation waits while the channel is being cleaned. Cleaning only
#: removes files, so it takes less.
PATIENCE = 60.0


def pool() -> Path:
    """The folder with the packages of all trees."""
    return toolchain_channel() / "pool"


def digests_of(
    root: Path, builds: Sequence[toolchain_builds.Build], lock: toolchain_lock.Lock
) -> dict[str, str]:
    """Digests of those of a tree's ``builds`` that are locked, and whose needs are locked too.

    So a new recipe that is not locked yet does not block the others.
    """
    usable: list[toolchain_builds.Build] = []
    names: set[str] = set()
    for build in builds:
        if (build.id in lock.files or not build.sources) and names.issuperset(
            (*build.needs, *build.runs)
        ):
            usable.append(build)
            names.add(build.id)
    return build_digests(root, usable, lock)


def view_of(root: Path) -> Path:
    """The channel that the source tree ``root`` sees; the folder may not exist yet.

    Raises:
        ConfigurationError: a recipe or the lock is malformed.
    """
    return folder_for(digests_of(root, toolchain_builds.load(root), toolchain_lock.read(root)))


def folder_for(digests: Mapping[str, str]) -> Path:
    """The view of a tree whose builds have these digests."""
    return toolchain_channel() / combined(digests)


@contextlib.contextmanager
def in_use(say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Keep the channel from being cleaned while the block runs.

    Any number of processes may do so at the same time, and a process may do so more than once.

    Raises:
        BusyError: the channel is being cleaned, and that takes longer than ``PATIENCE``.
    """
    with locks.shared(
        toolchain_channel() / ".lock",
        f"{_WHAT} ({toolchain_channel()})",
        patience=PATIENCE,
        say=say,
    ):
        yield


@contextlib.contextmanager
def building(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock on the build ``name``, after waiting for another process that holds it."""
    with locks.turn(_work() / f"{name}.lock", f"{name} for {_WHAT}", say=say):
        yield


def refresh(digests: Mapping[str, str]) -> Path:
    """Update the view for ``digests``: link the packages that the pool has, then write the index.

    Returns the folder of the view.
    """
    view = folder_for(digests)
    # The pool is read under the lock: another process may refresh the same view at the same time
    # and know of more or fewer packages.
    with disk_errors(view), locks.turn(view / ".lock", "the index"):
        found = (
            channel_records.read_record(pool(), name, digest)
            for name, digest in sorted(digests.items())
        )
        records = [record for record in found if record is not None]
        for subdir in channel_index.SUBDIRS:
            (view / subdir).mkdir(parents=True, exist_ok=True)
        for record in records:
            for name in record.packages:
                _link(pool() / name, view / name)
        channel_index.write(
            view, {name: entry for record in records for name, entry in record.packages.items()}
        )
        (view / _USED).touch()
    return view


def _link(source: Path, target: Path) -> None:
    if target.is_file() and target.stat().st_ino == source.stat().st_ino:
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        # The file system has no hard links.
        shutil.copyfile(source, temporary)
    temporary.replace(target)


def reading(
    urls: Sequence[str], say: Callable[[str], None] | None = None
) -> contextlib.AbstractContextManager[None]:
    """Return ``in_use`` if ``urls`` contains the address of a view, else an empty context.

    Such a view counts as used now.
    """
    start = toolchain_channel().as_uri() + "/"
    views = [
        toolchain_channel() / url.removeprefix(start).rstrip("/")
        for url in urls
        if url.startswith(start)
    ]
    for view in views:
        if (view / _USED).is_file():
            (view / _USED).touch()
    return in_use(say) if views else contextlib.nullcontext()


def forget_extracted(file: str) -> None:
    """Remove a package that is no longer in the channel from the cache of extracted packages."""
    removal.remove_tree(
        rattler_cache() / "pkgs" / file.removesuffix(".conda"), below=removal.claim_cache()
    )


@dataclass(frozen=True)
class Cleaned:
    """The number of views and packages that were removed, and the bytes of the packages."""

    views: int
    packages: int
    size: int


def _views() -> list[Path]:
    return sorted(path.parent for path in toolchain_channel().glob(f"*/{_USED}"))


def clean(days: float) -> Cleaned:
    """Remove the views that were not used for ``days``, and packages that no other view has.

    After an error, nothing has been removed.

    Raises:
        BusyError: a process builds for the channel or installs from it.
        ConfigurationError: the cache folder holds files that this library did not make.
    """
    # Before the lock is taken: its file would count as proof that the folder is ours.
    removal.claim_cache()
    channel, latest = toolchain_channel(), time.time() - days * _DAY
    with locks.unused(channel / ".lock", _WHAT):
        old = [view for view in _views() if (view / _USED).stat().st_mtime <= latest]
        for view in old:
            # The index first, so that a partly removed view is not taken for a complete one.
            for subdir in channel_index.SUBDIRS:
                (view / subdir / channel_index.INDEX).unlink(missing_ok=True)
            removal.remove_tree(view, below=removal.claim_cache())
        named = {name for view in _views() for name in channel_index.indexed(view)}
        for record in channel_records.read_records(pool()).values():
            if named.isdisjoint(record.packages):
                channel_records.remove_record(pool(), record)
        unnamed = [
            path for path in _packages(pool()) if f"{path.parent.name}/{path.name}" not in named
        ]
        # Earlier versions kept packages directly in the channel's folder.
        unnamed += [path for path in _packages(channel) if path.stat().st_mtime <= latest]
        size = sum(path.stat().st_size for path in unnamed)
        for path in unnamed:
            path.unlink()
            if f"{path.parent.name}/{path.name}" not in named:
                forget_extracted(path.name)
        # Left by killed builds. The lock proves that no build is running.
        removal.remove_tree(_work(), below=removal.claim_cache())
        return Cleaned(len(old), len(unnamed), size)


def _work() -> Path:
    return cache_root() / "work" / "toolchain"


def _packages(folder: Path) -> list[Path]:
    return sorted(
        path for subdir in channel_index.SUBDIRS for path in (folder / subdir).glob("*.conda")
    )
