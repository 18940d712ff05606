# SPDX-License-Identifier: Apache-2.0
"""Rules for the folders that may become, or be replaced by, a conda environment."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.conda.environments import edits, intact
from vllm_build.util import files, path_rules, paths, removal
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CACHE = "the cache"
_REMEDY = (
    "name another folder; or say --force, which removes the folder's content once the new "
    "environment is complete, or --update, which installs into the existing environment"
)


def _absolute(given: Path) -> Path:
    """The path for installed files: the user's spelling, but with ``..`` resolved.

    Behind a symbolic link, ``..`` would mean another folder.
    """
    absolute = given.absolute()
    if ".." in absolute.parts:
        absolute = Path(os.path.realpath(absolute.parent)) / absolute.name
        if absolute.name == "..":
            absolute = Path(os.path.realpath(absolute))
    return absolute


def _existing(folder: Path) -> Path:
    """``folder``, or its nearest parent that exists."""
    return next(above for above in (folder, *folder.parents) if os.path.lexists(above))


def check(given: Path, keep: Sequence[Path] = ()) -> Path:
    """Check that a path can hold an environment, without writing anything.

    Args:
        given: the path as the user wrote it.
        keep: more folders that must not be replaced. The root, the home folder, the checkout, the
            cache and the current folder never are.

    Returns:
        The absolute path.

    Raises:
        ConfigurationError: the path cannot hold an environment.
    """
    prefix = _absolute(given)
    path_rules.require_prefix(prefix, "the environment", "name another folder")
    if prefix.is_symlink():
        raise ConfigurationError(
            f"{prefix} is a link to {prefix.readlink()}",
            expected="a folder, or a path for a new one",
            remedy="name the folder that the link leads to",
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
                f"{prefix} is or contains {what}, {folder}",
                expected="a folder for the environment alone",
                remedy="name another folder",
            )
        if what == _CACHE and any(folder in way.parents for way in ways):
            raise ConfigurationError(
                f"{prefix} is inside {what}, {folder}",
                expected="a folder outside of it, because files in it are removed without asking",
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
            expected=f"a folder where {prefix.name} can be made: the environment is built next to "
            "its final place and renamed",
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
        # Both spellings: the prefix may contain the folder itself or a link to it.
        yield what, Path(os.path.realpath(folder))
        yield what, folder.absolute()


def require_apart(prefix: Path) -> None:
    """Refuse a prefix inside another conda environment, which would treat it as its own files.

    conda's own folder ``envs`` is permitted.

    Args:
        prefix: an absolute path.

    Raises:
        ConfigurationError: the prefix is inside an environment.
    """
    for way in (prefix, Path(os.path.realpath(prefix))):
        for above in way.parents:
            inside = way.relative_to(above).parts
            if (above / "conda-meta").is_dir() and not (inside[0] == "envs" and len(inside) > 1):
                raise ConfigurationError(
                    f"{prefix} is inside the conda environment {above}",
                    expected=f"a folder outside of every environment, or one in {above / 'envs'}",
                    remedy="name another folder",
                )


def is_occupied(prefix: Path) -> bool:
    """Whether the prefix is a folder that is not empty."""
    return prefix.is_dir() and any(prefix.iterdir())


def require_environment(prefix: Path) -> None:
    """Refuse to update a folder that is not an environment; a new or empty one is permitted.

    Raises:
        ConfigurationError: the folder contains other files, or a package's record in it cannot be
            read.
    """
    if not is_occupied(prefix):
        return
    if not (prefix / "conda-meta").is_dir():
        raise ConfigurationError(
            f"{prefix} is not a conda environment",
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
    """Refuse to replace a folder unless it is exactly as ``vllm-build install`` left it.

    Args:
        prefix: the environment.
        contents: also compare the files of packages, which reads files that may have changed.

    Raises:
        ConfigurationError: the folder contains a user's files, another program's environment, added
            packages or changed files of packages; or it lacks files, or its records cannot be read.
    """
    if not is_occupied(prefix):
        return
    marked = intact.marked(prefix)
    if marked is None:
        what = "a conda environment" if (prefix / "conda-meta" / "history").exists() else "files"
        raise ConfigurationError(
            f"{prefix} contains {what} that vllm-build did not install",
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
            f"{prefix} contains files that were added after vllm-build made it: "
            f"{removal.some(added)}"
        )
    if not contents:
        return
    found = list(edits.differences(prefix, records, intact.noted_states(prefix)))
    if changed := sorted(path for path, gone in found if not gone):
        raise _not_as_left(
            f"{prefix} contains files that were changed after vllm-build made it: "
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
    """Refuse an update that would replace changed files of packages.

    Files that a user removed do not matter.

    Args:
        old: the existing environment.
        new: its updated copy.

    Raises:
        ConfigurationError: the update replaces or removes a package with changed files.
    """
    remaining = intact.records(new)
    replaced = {
        name: record
        for name, record in intact.records(old).items()
        if intact.is_replaced(record, remaining.get(name))
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
            expected="unchanged files in the packages that are replaced",
            remedy="move the changed files out of the environment, and run the same command again",
        )
