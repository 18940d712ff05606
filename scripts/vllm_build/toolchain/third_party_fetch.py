# SPDX-License-Identifier: Apache-2.0
"""Downloads and extracts locked third-party sources into the cache, where builds find them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.sources import third_party
from vllm_build.toolchain.locked_files import Fetcher
from vllm_build.toolchain.toolchain_lock import LockedFile
from vllm_build.util import locks, paths
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vllm_build.util.console import Console


def _locked_file(source: third_party.Source) -> LockedFile:
    get = source.get
    # The name is no build of the toolchain channel. The path in the download cache depends on the
    # sha256 only.
    name, file = f"third_party/{source.name}", (source.filename, source.sha256, source.size)
    if get["type"] == "apt-source":
        return LockedFile(
            name, 0, "apt-source", get["package"], get["revision"], *file, get["suite"]
        )
    if get["type"] == "pypi-sdist":
        return LockedFile(name, 0, "pypi-sdist", get["package"], get["version"], *file)
    raise ConfigurationError(
        f"{third_party.LOCK}: {source.name} has the unknown type {get['type']!r}",
        expected="apt-source or pypi-sdist",
        remedy=f"set {third_party.variable(source.name)} to a folder with its sources",
    )


def archive(source: third_party.Source, console: Console, inherited: Mapping[str, str]) -> Path:
    """Download the archive of one source unless the cache has it, and return its path there.

    Args:
        source: the locked source.
        console: shows the progress.
        inherited: the variables that apt and pip start from.

    Raises:
        FetchError, IntegrityError, ToolchainError, ResourceError: as :func:`fetch`.
    """
    fetcher, file = Fetcher(paths.cache_root(), console, inherited), _locked_file(source)
    fetcher.ensure([file])
    return fetcher.store.path(file)


def fetch(source: third_party.Source, console: Console, inherited: Mapping[str, str]) -> str:
    """Fetch one source unless the cache has an intact copy, and return its folder.

    A changed copy is extracted again.

    Args:
        source: the locked source.
        console: shows the progress.
        inherited: the variables that apt and pip start from.

    Raises:
        FetchError: the source cannot be downloaded.
        IntegrityError: the download does not have the locked sha256.
        ToolchainError: this machine has no apt.
        ResourceError: the disk is full.
    """
    if source.folder.is_dir():
        if source.is_intact():
            console.info(f"{source.name} {source.version}: {source.folder}")
            return str(source.folder)
        console.warn(f"{source.folder} was changed after it was extracted; it is extracted again")
    with (
        console.step(f"fetch {source.name} {source.version}"),
        locks.exclusive(paths.cache_root() / "sources", "the source cache"),
    ):
        return str(third_party.extract(source, archive(source, console, inherited)))
