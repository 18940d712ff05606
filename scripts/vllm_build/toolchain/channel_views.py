# SPDX-License-Identifier: Apache-2.0
"""Which packages a source tree sees of the shared channel, and who uses them.

All checkouts of a user share one pool of packages. A package's name holds the digest of all that
shapes it, so the pool can keep the packages of any number of trees. A solver, however, would mix
them: it picks by version and build number. So each state of a tree has a
view: a channel whose folder is named after the digests of all builds of that tree, whose index
names exactly its packages, and whose files are hard links into the pool. Only ``clean`` removes
anything, and it refuses to run while a process builds or installs.
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
#: Its time says when the view was last used.
_USED = ".used"
_DAY = 86_400.0
#: For how long a build or an installation waits for a cleaning, in seconds. It removes files and
#: takes no longer than that.
PATIENCE = 60.0


def pool() -> Path:
    """The packages of all trees."""
    return toolchain_channel() / "pool"


def digests_of(
    root: Path, builds: Sequence[toolchain_builds.Build], lock: toolchain_lock.Lock
) -> dict[str, str]:
    """Digest of every one of ``builds``, all of a tree, whose files are locked, with all that it needs.

    A recipe that is being written and not locked yet does not keep the others from being used.
    """
    usable: list[toolchain_builds.Build] = []
    names: set[str] = set()
    for build in builds:
        if (build.id in lock.files or not build.sources) and names.issuperset(build.needs):
            usable.append(build)
            names.add(build.id)
    return build_digests(root, usable, lock)


def view_of(root: Path) -> Path:
    """The channel that the source tree ``root`` sees; it may not be there yet.

    Raises:
        ConfigurationError: a recipe or the lock is malformed.
    """
    return folder_for(digests_of(root, toolchain_builds.load(root), toolchain_lock.read(root)))


def folder_for(digests: Mapping[str, str]) -> Path:
    """The view of a tree whose builds have these digests."""
    return toolchain_channel() / combined(digests)


@contextlib.contextmanager
def in_use(say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Keep the channel from being cleaned for the duration of the block; any number of processes may do so at once, and one repeatedly.

    Raises:
        BusyError: it is being cleaned, and that does not end.
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
    """Be the only process that makes the packages of the build ``name``; another one that makes them is waited for."""
    with locks.turn(_work() / f"{name}.lock", f"{name} for {_WHAT}", say=say):
        yield


def refresh(digests: Mapping[str, str]) -> Path:
    """Make the view for ``digests`` a channel of those packages that are in the pool; files come first, then the index that names them."""
    view = folder_for(digests)
    # What is in the pool is read under the lock: another process may do the same for the same tree,
    # knowing of a package more or less.
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
        # A file system without hard links.
        shutil.copyfile(source, temporary)
    temporary.replace(target)


def reading(
    urls: Sequence[str], say: Callable[[str], None] | None = None
) -> contextlib.AbstractContextManager[None]:
    """``in_use`` where one of the channels ``urls`` is a view, which counts as used now; nothing for others."""
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
    """Remove a package from the cache of extracted packages: these bytes are no longer in the channel."""
    removal.remove_tree(
        rattler_cache() / "pkgs" / file.removesuffix(".conda"), below=removal.claim_cache()
    )


@dataclass(frozen=True)
class Cleaned:
    """What a cleaning removed."""

    views: int
    packages: int
    size: int


def _views() -> list[Path]:
    return sorted(path.parent for path in toolchain_channel().glob(f"*/{_USED}"))


def clean(days: float) -> Cleaned:
    """Remove the views that nobody has used for ``days``, and every package that no other view has.

    Raises:
        BusyError: a process builds for the channel or installs from it; nothing is removed.
        ConfigurationError: the cache folder holds files that this library did not make; nothing is
            removed.
    """
    # Before the lock, whose file would prove that the channel is ours.
    removal.claim_cache()
    channel, latest = toolchain_channel(), time.time() - days * _DAY
    with locks.unused(channel / ".lock", _WHAT):
        old = [view for view in _views() if (view / _USED).stat().st_mtime <= latest]
        for view in old:
            # The index first: half a view must not look like a whole one.
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
        # Versions before this one had theirs directly in the channel's folder.
        unnamed += [path for path in _packages(channel) if path.stat().st_mtime <= latest]
        size = sum(path.stat().st_size for path in unnamed)
        for path in unnamed:
            path.unlink()
            if f"{path.parent.name}/{path.name}" not in named:
                forget_extracted(path.name)
        # What killed builds left: nobody builds now.
        removal.remove_tree(_work(), below=removal.claim_cache())
        return Cleaned(len(old), len(unnamed), size)


def _work() -> Path:
    return cache_root() / "work" / "toolchain"


def _packages(folder: Path) -> list[Path]:
    return sorted(
        path for subdir in channel_index.SUBDIRS for path in (folder / subdir).glob("*.conda")
    )
