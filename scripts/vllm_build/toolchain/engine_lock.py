# SPDX-License-Identifier: Apache-2.0
"""Moves the engine's entry in ``third_party/lock.toml`` to another release."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from vllm_build.engine import engine_source
from vllm_build.sources import third_party
from vllm_build.toolchain import pypi
from vllm_build.toolchain.locked_files import Fetcher
from vllm_build.toolchain.toolchain_lock import LockedFile
from vllm_build.util import locks, paths
from vllm_build.util.errors import ConfigurationError, IntegrityError
from vllm_build.util.files import read_text, write_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vllm_build.util.console import Console

_ENTRY = re.compile(
    rf'^\[\[source\]\]\nname = "{engine_source.NAME}"\n(?:(?!\[\[source\]\]).*\n)*', re.MULTILINE
)


def rewrite(text: str, source: third_party.Source) -> str:
    """The text of the lock with another release of the engine; its other keys stay.

    Raises:
        ConfigurationError: the lock has no entry for the engine, or the entry lacks a key.
    """
    found = _ENTRY.search(text)
    if found is None:
        raise ConfigurationError(
            f"{third_party.LOCK} has no {engine_source.NAME!r}", expected="an entry to change"
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
        entry, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", entry)
        if count != 1:
            raise ConfigurationError(
                f"{third_party.LOCK}: the entry of {engine_source.NAME} has {count} lines with "
                f"{key}",
                expected="one",
            )
    return text[: found.start()] + entry + text[found.end() :]


def update(
    root: Path, version: str, console: Console, inherited: Mapping[str, str]
) -> third_party.Source:
    """Fetch a release of the engine, and write it into the lock; returns the new entry.

    Args:
        root: the source tree.
        version: the release.
        console: shows the progress.
        inherited: the variables that pip starts from.

    Raises:
        MissingVersionError: the index does not have the release.
        FetchError, IntegrityError, ResourceError, ConfigurationError: as
            :func:`vllm_build.toolchain.third_party_fetch.fetch`.
    """
    before = engine_source.locked(root)
    with console.step(f"find vllm {version}"):
        filename, sha256 = pypi.find_sdist(engine_source.NAME, version, inherited=inherited)
        if not sha256:
            raise IntegrityError(
                f"the index gives no sha256 for vllm {version}",
                expected="an index that gives one, such as PyPI",
            )
    file = LockedFile(
        f"third_party/{engine_source.NAME}",
        0,
        "pypi-sdist",
        engine_source.NAME,
        version,
        filename,
        sha256,
    )
    with (
        console.step(f"fetch {filename}"),
        locks.exclusive(paths.cache_root() / "sources", "the source cache"),
    ):
        fetcher = Fetcher(paths.cache_root(), console, inherited)
        fetcher.ensure([file])
        archive = fetcher.store.path(file)
        found = dataclasses.replace(
            before,
            version=version,
            filename=filename,
            size=archive.stat().st_size,
            sha256=sha256,
            get={**before.get, "version": version},
        )
        found = dataclasses.replace(found, tree_sha256=third_party.tree_digest(found, archive))
        third_party.extract(found, archive)
    lock = root / third_party.LOCK
    write_text(lock, rewrite(read_text(lock), found))
    return found
