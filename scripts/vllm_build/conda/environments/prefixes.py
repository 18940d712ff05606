# SPDX-License-Identifier: Apache-2.0
"""Puts an environment at the place that a user names, whole or not at all, and never over files that it did not install.

An environment is installed into a work folder beside its place, with the paths that it will have
there (rattler's ``alternative_target_prefix``), and then renamed. Beside ``env`` lie, while an
installation runs::

    .env.vllm-build.lock    one installation at a time
    .env.vllm-build/new     the environment that is being installed
    .env.vllm-build/old     what was at the place before, between the two renames and until it is removed

A process that is killed leaves the old environment at its place, or in ``old`` with ``new`` beside
it, or the new one at its place. The next installation at the same place tells these cases apart by
the names that are there (:func:`_recover`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.conda.environments import edits, intact
from vllm_build.util import files, locks, path_rules, paths, removal
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NEW, _OLD = "new", "old"
_CACHE = "the cache"
_REMEDY = (
    "name another folder; or say --force, which removes what is there once the new environment is "
    "complete, or --update, which keeps it "
    "and installs into the environment that is there"
)


def _absolute(given: Path) -> Path:
    """The path that goes into installed files: as the user wrote it, without ``..``, which means another folder behind a link."""
    absolute = given.absolute()
    if ".." in absolute.parts:
        absolute = Path(os.path.realpath(absolute.parent)) / absolute.name
        if absolute.name == "..":
            absolute = Path(os.path.realpath(absolute))
    return absolute


def _existing(folder: Path) -> Path:
    """The nearest folder above or at ``folder`` that exists."""
    return next(above for above in (folder, *folder.parents) if os.path.lexists(above))


def check(given: Path, keep: Sequence[Path] = ()) -> Path:
    """The absolute path of a prefix, when an environment can be put there at all; nothing is written.

    Args:
        given: what the user wrote.
        keep: folders that must not be replaced, besides the root, the home folder, the checkout,
            the cache and the current folder.

    Raises:
        ConfigurationError: it is not possible; the message says what to do.
    """
    prefix = _absolute(given)
    path_rules.require_prefix(prefix, "the environment", "name another folder")
    if prefix.is_symlink():
        raise ConfigurationError(
            f"{prefix} is a link to {prefix.readlink()}",
            expected="a folder, or a path for a new one",
            remedy="name the folder itself",
        )
    if prefix.exists() and not prefix.is_dir():
        raise ConfigurationError(
            f"{prefix} is a file",
            expected="a folder, or a path for a new one",
            remedy="name another path",
        )
    ways = {prefix, Path(os.path.realpath(prefix))}
    for what, folder in _kept(keep):
        if any(way == folder or way in folder.parents for way in ways):
            raise ConfigurationError(
                f"{prefix} is or holds {what}, {folder}",
                expected="a folder of its own",
                remedy="name another folder",
            )
        if what == _CACHE and any(folder in way.parents for way in ways):
            raise ConfigurationError(
                f"{prefix} lies in {what}, {folder}",
                expected="a folder outside of it: what lies there is removed without a question",
                remedy="name another folder",
            )
    above = _existing(prefix.parent)
    if not above.is_dir():
        raise ConfigurationError(
            f"{above}, above {prefix}, is not a folder", remedy="name another path"
        )
    if not files.may_write(above):
        raise ConfigurationError(
            f"{above} cannot be written to",
            expected=f"a folder where {prefix.name} can be made: the environment is built beside "
            "its place and renamed",
            remedy="name a prefix in another folder",
        )
    if prefix.is_dir() and prefix.is_mount():
        raise ConfigurationError(
            f"{prefix} is a mount point, which cannot be renamed",
            remedy=f"name a folder in it: {prefix / 'env'}",
        )
    return prefix


def _kept(more: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    named = [
        ("the root folder", Path("/")),
        ("the source tree", paths.source_root()),
        (_CACHE, paths.cache_root()),
    ]
    named += [("the current folder", Path.cwd()), *(("a channel", folder) for folder in more)]
    with contextlib.suppress(RuntimeError):
        # Some user ids have no home.
        named.append(("your home folder", Path.home()))
    for what, folder in named:
        # Both: the prefix may hold the folder, or a link that leads to it.
        yield what, Path(os.path.realpath(folder))
        yield what, folder.absolute()


def require_apart(prefix: Path) -> None:
    """Refuse a prefix inside another conda environment, whose programs would take it for their own files. ``envs`` of conda's own is not.

    Args:
        prefix: absolute.

    Raises:
        ConfigurationError: it lies in one.
    """
    for way in (prefix, Path(os.path.realpath(prefix))):
        for above in way.parents:
            inside = way.relative_to(above).parts
            if (above / "conda-meta").is_dir() and not (inside[0] == "envs" and len(inside) > 1):
                raise ConfigurationError(
                    f"{prefix} lies in the conda environment {above}",
                    expected=f"a folder outside of every environment, or one in {above / 'envs'}",
                    remedy="name another folder",
                )


def is_occupied(prefix: Path) -> bool:
    """Whether there is a folder with something in it."""
    return prefix.is_dir() and any(prefix.iterdir())


def require_environment(prefix: Path) -> None:
    """Refuse to update what is no environment; a new or empty folder becomes one.

    Raises:
        ConfigurationError: the folder holds something else, or a record of a package in it cannot
            be read.
    """
    if not is_occupied(prefix):
        return
    if not (prefix / "conda-meta").is_dir():
        raise ConfigurationError(
            f"{prefix} is no conda environment",
            expected="an environment, or a folder that is new or empty",
            remedy="name another folder",
        )
    try:
        intact.records(prefix)
    except ValueError as error:
        raise ConfigurationError(
            f"{prefix} cannot be updated: {error}",
            expected="an environment whose records can be read",
            remedy="name another folder",
        ) from error


def require_replaceable(prefix: Path, *, contents: bool = True) -> None:
    """Refuse to replace anything but an environment as ``vllm-build install`` left it.

    Args:
        prefix: of the environment.
        contents: compare the files of packages as well, which reads files that may have changed.

    Raises:
        ConfigurationError: the folder holds something else: files of a user's, another program's
            environment, packages that were added, files of packages that were changed; or it lacks
            files, or cannot be compared with its records.
    """
    if not is_occupied(prefix):
        return
    marked = intact.marked(prefix)
    if marked is None:
        what = "a conda environment" if (prefix / "conda-meta" / "history").exists() else "files"
        raise ConfigurationError(
            f"{prefix} holds {what} that vllm-build did not install",
            expected="a folder that is new, empty, or an environment of vllm-build",
            remedy=_REMEDY,
        )
    try:
        records = intact.records(prefix)
        added = sorted(set(records) - set(marked)) or sorted(intact.unknown_files(prefix))
    except ValueError as error:
        raise _not_as_left(f"{prefix} cannot be compared with its records: {error}") from error
    if added:
        raise _not_as_left(
            f"{prefix} holds what was added after vllm-build made it: {removal.some(added)}"
        )
    if not contents:
        return
    found = list(edits.differences(prefix, records, intact.noted_states(prefix)))
    if changed := sorted(path for path, gone in found if not gone):
        raise _not_as_left(
            f"{prefix} holds files that were changed after vllm-build made it: "
            f"{removal.some(changed)}"
        )
    if gone := sorted(
        [path for path, gone in found if gone]
        + [f"conda-meta/{name}" for name in set(marked) - set(records)]
    ):
        raise _not_as_left(
            f"{prefix} lacks files that were removed after vllm-build made it: {removal.some(gone)}"
        )


def _not_as_left(message: str) -> ConfigurationError:
    return ConfigurationError(
        message, expected="an environment as vllm-build left it", remedy=_REMEDY
    )


def require_kept(old: Path, new: Path) -> None:
    """Refuse an update that would replace files of packages which a user has changed.

    What was removed is no loss.

    Args:
        old: the environment that is there.
        new: its updated copy.

    Raises:
        ConfigurationError: a package that is replaced or goes away has such files.
    """
    there = intact.records(new)
    replaced = {
        name: record
        for name, record in intact.records(old).items()
        if intact.is_replaced(record, there.get(name))
    }
    changed = sorted(
        path
        for path, gone in edits.differences(old, replaced, intact.noted_states(old))
        if not gone
    )
    if changed:
        raise ConfigurationError(
            f"the update would replace files of packages that were changed in {old}: "
            f"{removal.some(changed)}",
            expected="files as their packages brought them, of the packages that are replaced",
            remedy="move the changed files out of the environment, and run the same command again",
        )


@dataclass(frozen=True)
class Site:
    """A place for an environment, with the folder beside it where one is built.

    Held by one process.
    """

    prefix: Path
    work: Path

    @property
    def new(self) -> Path:
        """Where the environment is built."""
        return self.work / _NEW

    def commit(self) -> None:
        """Put what was built at its place.

        After an error between the renames, :func:`opened` puts back what was there before.

        Raises:
            OSError: a rename failed.
        """
        if self.prefix.is_dir():
            self.prefix.rename(self.work / _OLD)
        self.new.rename(self.prefix)


def _recover(site: Site) -> None:
    """Finish or undo what a killed or failed installation began.

    ``old`` beside ``new`` and nothing at the place: it ended between the renames, and the old
    environment returns. ``old`` alone: both renames were done, and what is left is removal.

    Raises:
        ConfigurationError: something was put at the place in the meantime, so that there are two
            environments for it.
    """
    old = site.work / _OLD
    if old.is_dir() and site.new.is_dir():
        if os.path.lexists(site.prefix):
            raise ConfigurationError(
                f"an installation into {site.prefix} was interrupted: the environment that was "
                f"there lies in {old}, and its place is taken",
                expected="one environment at one place",
                remedy=f"move {site.prefix} away and run the same command again, or remove {old}",
            )
        old.rename(site.prefix)


@contextmanager
def opened(prefix: Path) -> Iterator[Site]:
    """The place ``prefix``, for one installation at a time, after recovery from one that was killed.

    Raises:
        BusyError: another process installs there.
        ConfigurationError: the work folder's name is taken, or the prefix has two environments
            after a crash.
    """
    site = Site(prefix, prefix.parent / f".{prefix.name}.vllm-build")
    with (
        _folders(prefix.parent),
        locks.transient(
            prefix.parent / f".{prefix.name}.vllm-build.lock", f"the environment {prefix}"
        ),
        # A disk that is full keeps it from being claimed; it is empty then.
        _folders(site.work),
    ):
        removal.claim(site.work, f"the work folder of {prefix}", (_NEW, _OLD, removal.MARKER))
        _tidy(site)
        try:
            yield site
        finally:
            _tidy(site)
            removal.remove_claimed(site.work)


@contextmanager
def _folders(folder: Path) -> Iterator[None]:
    """Remove ``folder`` and those above it at the end, as far as they were not there at the beginning and are empty then."""
    missing = list(
        itertools.takewhile(lambda path: not os.path.lexists(path), (folder, *folder.parents))
    )
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for path in missing:
                path.rmdir()


def _tidy(site: Site) -> None:
    """Leave one environment.

    ``old`` goes first: beside ``new``, it would look like one that has to return.
    """
    _recover(site)
    for name in (_OLD, _NEW):
        removal.remove_tree(site.work / name, below=site.work)
