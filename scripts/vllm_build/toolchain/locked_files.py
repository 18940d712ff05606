# SPDX-License-Identifier: Apache-2.0
"""Provides the verified files of a build, from the download cache or through apt and pip."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vllm_build.sources.third_party import LOCK as THIRD_PARTY
from vllm_build.toolchain import pypi
from vllm_build.toolchain.apt import PrivateApt
from vllm_build.toolchain.debian_suites import MAIN, ListGroup, find_group
from vllm_build.toolchain.download_store import Store
from vllm_build.util import removal
from vllm_build.util.errors import FetchError, IntegrityError
from vllm_build.util.files import disk_errors, sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from vllm_build.toolchain.toolchain_lock import LockedFile
    from vllm_build.util.console import Console


@dataclass
class Fetcher:
    """Fetches locked files into the download cache.

    apt is set up only if a Debian file is missing.

    Attributes:
        cache: the cache folder.
        console: shows the progress.
        inherited: the variables that apt and pip start from.
    """

    cache: Path
    console: Console
    inherited: Mapping[str, str] = field(repr=False)
    _apts: dict[ListGroup, PrivateApt] = field(default_factory=dict, init=False)

    @property
    def store(self) -> Store:
        """The download cache."""
        return Store(self.cache / "downloads")

    def apt(self, group: ListGroup = MAIN) -> PrivateApt:
        """Return the prepared private apt of one group of package lists.

        Raises:
            ToolchainError: this machine has no apt.
        """
        if group not in self._apts:
            folder = self.cache / ("apt" if group == MAIN else f"apt-{group.name}")
            apt = PrivateApt(folder, self.console, self.inherited, group)
            apt.prepare()
            self._apts[group] = apt
        return self._apts[group]

    def _absent(self, files: Iterable[LockedFile]) -> list[LockedFile]:
        return [file for file in files if self.store.get(file) is None]

    def ensure(self, files: Sequence[LockedFile]) -> Sequence[LockedFile]:
        """Download those of ``files`` that the store lacks, and return all.

        Raises:
            FetchError: a file cannot be downloaded.
            IntegrityError: a downloaded file does not have the locked sha256.
            ToolchainError: this machine has no apt.
            ResourceError: the disk is full.
        """
        self._fetch(self._absent(files))
        return files

    def _fetch(self, files: Sequence[LockedFile]) -> None:
        debian: defaultdict[tuple[ListGroup, bool], list[LockedFile]] = defaultdict(list)
        wheels: defaultdict[tuple[str, str], list[LockedFile]] = defaultdict(list)
        for file in files:
            if file.type == "pypi-sdist":
                with self.store.incoming() as folder:
                    pypi.download_sdist(
                        file.name,
                        file.version,
                        file.sha256,
                        folder,
                        THIRD_PARTY,
                        inherited=self.inherited,
                    )
                    self._store([file], folder)
            elif file.type != "pypi":
                debian[find_group(file.suite), file.type == "apt-source"].append(file)
            else:
                wheels[file.python, file.abi].append(file)
        for (lists, is_source), group in sorted(
            debian.items(), key=lambda item: (item[0][0].name, item[0][1])
        ):
            with self.store.incoming() as folder:
                self.apt(lists).download(
                    sorted({(file.name, file.version) for file in group}), folder, source=is_source
                )
                self._store(group, folder)
        for (python, abi), group in sorted(wheels.items()):
            with self.store.incoming() as folder:
                wanted = {(file.name, file.version, file.sha256) for file in group}
                pypi.download(
                    wanted, folder, python=python, abi=abi or None, inherited=self.inherited
                )
                self._store(group, folder)

    def _store(self, files: Sequence[LockedFile], folder: Path) -> None:
        """Move the downloads in ``folder`` into the store.

        They are identified by their content, because apt and pip spell file names differently.
        """
        arrived = {sha256_of(path): path for path in sorted(folder.iterdir()) if path.is_file()}
        for file in files:
            path = arrived.get(file.sha256)
            if path is not None:
                self.store.put(file, path)
                continue
            same = [
                other
                for other in arrived.values()
                if other.exists()
                and other.name.split("_")[0].split("-")[0] == file.name.split("-")[0]
            ]
            if same:
                self.store.put(file, same[0])  # raises an error that names the actual sha256
            raise FetchError(
                f"the download of {file.label} did not contain {file.filename}",
                remedy="run the same command again",
            )

    def folder_of(self, files: Iterable[LockedFile], folder: Path) -> None:
        """Fill ``folder`` with exactly ``files``, under their own names.

        They are hard links into the store, or copies where the file system has no hard links.

        Raises:
            IntegrityError: a file is no longer in the store.
        """
        removal.remove_tree(folder, below=removal.claim_cache(self.cache))
        with disk_errors(folder):
            folder.mkdir(parents=True)
            for file in files:
                path = self.store.path(file)
                if not path.is_file():
                    raise IntegrityError(
                        f"{file.filename} was removed from the download cache",
                        remedy="run the same command again",
                    )
                try:
                    os.link(path, folder / file.filename)
                except OSError:
                    shutil.copyfile(path, folder / file.filename)
