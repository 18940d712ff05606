# SPDX-License-Identifier: Apache-2.0
"""Kernels from a conda channel.

A package is found by the digits of the kernel digest in its build string. The digest in the
package's record confirms it.
"""

from __future__ import annotations

import platform
import re
from typing import TYPE_CHECKING, Any

from vllm_build.digests import tree_digests
from vllm_build.reuse.archives.archive_source import ArchiveSource
from vllm_build.reuse.records import bounds
from vllm_build.reuse.records.output_record import SHA256, load_json
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util.redaction import excerpt

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vllm_build.reuse.records.fitness import Machine, Wanted
    from vllm_build.reuse.records.output_record import Record
    from vllm_build.reuse.stores.kernel_store import Base

_SUBDIRS = {"x86_64": "linux-64", "aarch64": "linux-aarch64", "ppc64le": "linux-ppc64le"}
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,200}\.conda")


def subdir() -> str:
    """The folder of a channel that has packages for this machine's processor."""
    return _SUBDIRS.get(platform.machine(), f"linux-{platform.machine()}")


def read_index(base: Base, folder: str) -> dict[str, Any] | None:
    """Read the index of a channel's folder.

    Returns:
        File name -> entry; None if there is no index.

    Raises:
        FetchError: the index cannot be fetched. RefusedError: it is malformed.
    """
    path = f"{folder}/repodata.json"
    data = base.read(path, bounds.REPODATA)
    if data is None:
        return None
    place = base.place(path)
    packages = load_json(data, place, "the index").get("packages.conda", {})
    if not isinstance(packages, dict):
        raise RefusedError(
            "document",
            place,
            "packages.conda is not an object",
            expected="an index of a conda channel",
        )
    return packages


class PackageOffer:
    """Packages that may have the wanted build; the record in each decides.

    Args:
        packages: at least one, in the order in which they are opened.
        wanted: the output.
    """

    def __init__(self, packages: Sequence[ArchiveSource], wanted: Wanted) -> None:
        self._packages, self._wanted = packages, wanted
        self._source = packages[0]

    @property
    def where(self) -> str:
        """The location of the package that was opened last."""
        return self._source.where

    def record(self) -> Record:
        """The record of the first package with the wanted digest, or else of the last package.

        Conda packages are fetched whole to read it.

        Raises:
            FetchError: a package cannot be fetched. RefusedError: it failed a check, or has no
                record of the output.
        """
        for source in self._packages[:-1]:
            self._source = source
            if (found := self._look()).digest == self._wanted.digest:
                return found
        self._source = self._packages[-1]
        return self._look()

    def _look(self) -> Record:
        if self._wanted.output not in self._source.outputs():
            raise RefusedError(
                "missing",
                self.where,
                f"no record of {self._wanted.output}",
                expected="a record of the output that the package is named after",
            )
        return self._source.record(self._wanted.output)

    def announce(self, record: Record) -> None:
        """Announce that its files will be requested."""
        self._source.announce(record)

    def libraries(self, record: Record) -> dict[str, Path]:
        """The files, complete and checked, in the cache.

        Raises:
            FetchError: a file cannot be fetched. RefusedError: a file does not match the record.
        """
        return self._source.libraries(record)


class Channel:
    """A conda channel in a folder or over http."""

    def __init__(self, base: Base) -> None:
        self.where, self._base = base.where, base
        self._index: dict[str, Any] | None = None
        self._open: list[ArchiveSource] = []

    def exists(self) -> bool:
        """Whether the location has a channel.

        Raises:
            FetchError: it cannot be reached. RefusedError: its index is malformed.
        """
        return self._packages() is not None

    def _packages(self) -> dict[str, Any] | None:
        if self._index is None:
            self._index = read_index(self._base, subdir())
        return self._index

    def find(self, wanted: Wanted, machine: Machine) -> PackageOffer | None:
        """The packages for this device with the wanted kernel digest; None if there are none.

        Raises:
            FetchError: the channel cannot be reached. RefusedError: its index is malformed.
        """
        release = f"{machine.toolkit.major}[0-9]+" if machine.toolkit else ""
        digits = wanted.kernel_digest[: tree_digests.SHORT]
        mark = re.compile(rf"{re.escape(machine.device)}{release}_(?:.*_)?k{digits}_.*")
        found = []
        for name, package in (self._packages() or {}).items():
            if (
                not isinstance(package, dict)
                or package.get("name") != wanted.output
                or not mark.fullmatch(str(package.get("build")))
            ):
                continue
            sha256, number = package.get("sha256"), package.get("build_number")
            if (
                not _FILE.fullmatch(name)
                or not isinstance(sha256, str)
                or not SHA256.fullmatch(sha256)
            ):
                raise RefusedError(
                    "index",
                    self.where,
                    f"the index lists {excerpt(name, 100)!r} with sha256 {sha256!r}",
                    expected="a plain file name and a sha256 of 64 hexadecimal digits",
                )
            found.append((number if isinstance(number, int) else 0, name, sha256))
        # The highest build number first, as a solver prefers it.
        places = [
            (self._base.place(f"{subdir()}/{name}"), sha256)
            for _, name, sha256 in sorted(found, reverse=True)
        ]
        sources = [ArchiveSource(self._base.context, place, sha256) for place, sha256 in places]
        self._open += sources
        return PackageOffer(sources, wanted) if sources else None

    def close(self) -> None:
        """Close the opened packages."""
        for source in self._open:
            source.__exit__()
