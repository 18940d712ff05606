# SPDX-License-Identifier: Apache-2.0
"""Moves the engine's entries in ``third_party/lock.toml`` to another release.

There are two for one archive: its Python modules, and the sources of its CUDA kernels.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from packaging.version import Version

from vllm_build.digests import recipe_stamp
from vllm_build.engine import engine_source
from vllm_build.sources import engine_kernels, third_party
from vllm_build.toolchain import sdist_search, third_party_fetch
from vllm_build.util import locks, paths
from vllm_build.util.errors import ConfigurationError, IntegrityError
from vllm_build.util.files import read_text, write_if_changed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vllm_build.util.console import Console

#: Where a page or a table may name the release.
_PAGES = (
    "README.md",
    "docs/*.md",
    "third_party/*.toml",
    "requirements/*.toml",
    "tests/data/*.txt",
    "tests/kernels/*.py",
    "tests/package/*.py",
    "benchmarks/**/*.py",
)
#: The entries of the archive, the modules first.
ENTRIES = (engine_source.NAME, engine_kernels.NAME)


def rewrite(text: str, source: third_party.Source) -> str:
    """The text of the lock with another release in the entry of that name; its other keys stay.

    Raises:
        ConfigurationError: the lock has no such entry, or the entry lacks a key.
    """
    pattern = rf'^\[\[source\]\]\nname = "{source.name}"\n(?:(?!\[\[source\]\]).*\n)*'
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise ConfigurationError(
            f"{third_party.LOCK} has no {source.name!r}", expected="an entry to change"
        )
    entry = found[0]
    values = {
        "version": f'"{source.version}"',
        "filename": f'"{source.filename}"',
        "size": str(source.size),
        "sha256": f'"{source.sha256}"',
        "tree_sha256": f'"{source.tree_sha256}"',
        "get": f'{{ type = "pypi-sdist", package = "{engine_source.NAME}", '
        f'version = "{source.version}" }}',
    }
    for key, value in values.items():
        # Doubled, because a replacement text has escapes.
        new = f"{key} = {value}".replace("\\", "\\\\")
        entry, count = re.subn(rf"(?m)^{key} = .*$", new, entry)
        if count != 1:
            raise ConfigurationError(
                f"{third_party.LOCK}: the entry of {source.name} has {count} lines with {key}",
                expected="one",
            )
    return text[: found.start()] + entry + text[found.end() :]


def version(root: Path) -> str:
    """The locked release, also if its entry has mistakes; empty without an entry.

    Raises:
        ConfigurationError: the lock is malformed.
    """
    found = third_party.read(root).get(engine_source.NAME)
    return found.version if found else ""


def mentions(root: Path, text: str) -> list[str]:
    """The tables, pages and data files of the tree that name a release of the engine, sorted.

    The change log keeps what it says about older releases, and the lock is up to date.
    """
    return sorted(
        path.relative_to(root).as_posix()
        for pattern in _PAGES
        for path in root.glob(pattern)
        if path.is_file() and text in read_text(path)
    )


def update(
    root: Path, version: str, console: Console, inherited: Mapping[str, str]
) -> third_party.Source:
    """Fetch a release of the engine, write it into the lock, and stamp the recipes.

    Returns:
        The new entry of the modules.

    Args:
        root: the source tree.
        version: the release.
        console: shows the progress.
        inherited: the variables that pip starts from.

    Raises:
        MissingVersionError: the index does not have the release.
        FetchError, IntegrityError, ResourceError, ConfigurationError: as
            :func:`vllm_build.toolchain.third_party_fetch.fetch`; the lock is unchanged.
    """
    locked = third_party.read(root)
    if missing := [name for name in ENTRIES if name not in locked]:
        raise ConfigurationError(
            f"{third_party.LOCK} has no {missing[0]!r}", expected="an entry to change"
        )
    with console.step(f"find vllm {version}"):
        filename, sha256 = sdist_search.find(engine_source.NAME, version, inherited=inherited)
        version = str(Version(version))
        if filename != f"{engine_source.NAME}-{version}.tar.gz":
            raise IntegrityError(
                f"the source distribution of vllm {version} is {filename}",
                expected=f"{engine_source.NAME}-{version}.tar.gz",
            )
    with (
        console.step(f"fetch {filename}"),
        locks.exclusive(paths.cache_root() / "sources", "the source cache"),
    ):
        entries = []
        for name in ENTRIES:
            found = dataclasses.replace(
                locked[name],
                version=version,
                filename=filename,
                size=0,
                sha256=sha256,
                get={"type": "pypi-sdist", "package": engine_source.NAME, "version": version},
            )
            archive = third_party_fetch.archive(found, console, inherited)
            found = dataclasses.replace(found, size=archive.stat().st_size)
            found = dataclasses.replace(found, tree_sha256=third_party.tree_digest(found, archive))
            third_party.extract(found, archive)
            entries.append(found)
        # The lock changes last, as a whole: an update that is killed leaves the old release. The
        # stamps of concurrent updates belong to the release that is locked at the end.
        lock = root / third_party.LOCK
        text = read_text(lock)
        for found in entries:
            text = rewrite(text, found)
        write_if_changed(lock, text)
        recipe_stamp.write(root)
    return entries[0]
