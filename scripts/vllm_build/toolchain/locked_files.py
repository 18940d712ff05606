# SPDX-License-Identifier: Apache-2.0
"""The verified files of one build: from the download cache, else through apt and pip."""

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
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from vllm_build.toolchain.toolchain_lock import LockedFile
    from vllm_build.util.console import Console


@dataclass
class Fetcher:
    """Fetches locked files into the store of ``cache``; apt is set up only when a Debian file is missing."""

    cache: Path
    console: Console
    _apts: dict[ListGroup, PrivateApt] = field(default_factory=dict, init=False)

    @property
    def store(self) -> Store:
        """The download cache."""
        return Store(self.cache / "downloads")

    def apt(self, group: ListGroup = MAIN) -> PrivateApt:
        """The private apt of one group of package lists, prepared.

        Raises:
            ToolchainError: no apt on this machine.
        """
        if group not in self._apts:
            folder = self.cache / ("apt" if group == MAIN else f"apt-{group.name}")
            apt = PrivateApt(folder, self.console, group)
            apt.prepare()
            self._apts[group] = apt
        return self._apts[group]

    def _absent(self, files: Iterable[LockedFile]) -> list[LockedFile]:
        return [file for file in files if self.store.get(file) is None]

    def ensure(self, files: Sequence[LockedFile]) -> Sequence[LockedFile]:
        """Bring ``files`` into the store and return them.

        Raises:
            FetchError: a file cannot be had; IntegrityError: other bytes than locked;
                ToolchainError: no apt; ResourceError: disk full.
        """
        self._fetch(self._absent(files))
        return files

    def _fetch(self, files: Sequence[LockedFile]) -> None:
        debian: defaultdict[tuple[ListGroup, bool], list[LockedFile]] = defaultdict(list)
        wheels: defaultdict[tuple[str, str], list[LockedFile]] = defaultdict(list)
        for file in files:
            if file.type == "pypi-sdist":
                with self.store.incoming() as folder:
                    pypi.download_sdist(file.name, file.version, file.sha256, folder, THIRD_PARTY)
                    self._take([file], folder)
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
                self._take(group, folder)
        for (python, abi), group in sorted(wheels.items()):
            with self.store.incoming() as folder:
                wanted = {(file.name, file.version, file.sha256) for file in group}
                pypi.download(wanted, folder, python=python, abi=abi or None)
                self._take(group, folder)

    def _take(self, files: Sequence[LockedFile], folder: Path) -> None:
        """Move what arrived into the store, recognised by content: apt and pip have their own ways to spell file names."""
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
                self.store.put(file, same[0])  # says which bytes came instead
            raise FetchError(
                f"{file.filename} did not arrive with {file.label}",
                remedy="run the same command again",
            )

    def folder_of(self, files: Iterable[LockedFile], folder: Path) -> None:
        """Make ``folder`` hold exactly ``files`` under their own names (hard links into the store where the disk allows).

        Raises:
            IntegrityError: a file was damaged in the meantime.
        """
        removal.remove_tree(folder, below=removal.claim_cache(self.cache))
        with disk_errors(folder):
            folder.mkdir(parents=True)
            for file in files:
                path = self.store.path(file)
                if not path.is_file():
                    raise IntegrityError(
                        f"{file.filename} vanished from the download cache",
                        remedy="run the same command again",
                    )
                try:
                    os.link(path, folder / file.filename)
                except OSError:
                    shutil.copyfile(path, folder / file.filename)
