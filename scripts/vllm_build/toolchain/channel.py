# SPDX-License-Identifier: Apache-2.0
"""The local channel: builds what changed, keeps what did not, and works at every moment in between."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build import removal
from vllm_build.conda import rattler
from vllm_build.errors import BuildError
from vllm_build.files import disk_errors
from vllm_build.locks import exclusive
from vllm_build.paths import cache_root, rattler_cache, toolchain_channel
from vllm_build.toolchain import lock as locking
from vllm_build.toolchain import repodata, sources
from vllm_build.toolchain.digests import build_digests, combined, files_of, upstream_version
from vllm_build.toolchain.fetch import Fetcher

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from vllm_build.console import Console


@dataclass(frozen=True)
class Outcome:
    """What happened to one build.

    Attributes:
        id: the build.
        action: ``reused`` or ``built``.
        seconds: wall time of this run's work on it; 0 when reused.
        size: bytes of its packages.
        packages: their file names.
    """

    id: str
    action: str
    seconds: float
    size: int
    packages: tuple[str, ...]


@dataclass(frozen=True)
class ChannelReport:
    """The channel after a run."""

    path: Path
    digest: str
    outcomes: tuple[Outcome, ...]

    @property
    def url(self) -> str:
        """The channel's address for rattler-build and conda."""
        return self.path.as_uri()

    @property
    def built(self) -> int:
        """How many builds ran."""
        return sum(outcome.action == "built" for outcome in self.outcomes)


def _forget_extracted(file: str) -> None:
    """Remove a package from the cache of extracted packages: nobody can ask for these bytes any more."""
    removal.remove_tree(rattler_cache() / "pkgs" / file.removesuffix(".conda"), below=removal.claim_cache())


@dataclass
class _Builder:
    root: Path
    channel: Path
    console: Console
    fetcher: Fetcher
    records: dict[str, repodata.Record]

    def clean(self, known: Iterable[str]) -> None:
        """Start from a valid channel.

        Builds whose files are gone or that no recipe makes are forgotten, files that nobody recorded are removed, the index is written.
        """
        names = set(known)
        for record in list(self.records.values()):
            if record.id not in names or not record.complete_in(self.channel):
                repodata.remove_record(self.channel, record.id)
                del self.records[record.id]
        repodata.write_index(self.channel, self.records.values())
        self._sweep()

    def _sweep(self) -> None:
        listed = {name for record in self.records.values() for name in record.packages}
        for subdir in repodata.SUBDIRS:
            for path in (self.channel / subdir).iterdir():
                if path.name != "repodata.json" and f"{subdir}/{path.name}" not in listed:
                    path.unlink()
                    _forget_extracted(path.name)

    def build(self, build: sources.Build, digest: str, files: Sequence[locking.LockedFile]) -> repodata.Record:
        """Run one build and take its packages into the channel."""
        work = cache_root() / "work" / "toolchain" / build.id
        begin = time.monotonic()
        with self.console.step(f"build {build.id} for the toolchain channel"):
            used = self.fetcher.ensure(files)
            removal.remove_tree(work, below=removal.claim_cache())
            self.fetcher.folder_of(used, work / "sources")
            packages = rattler.build(
                build.recipe,
                variants={key: [value] for key, value in build.variant.items()},
                channels=[self.channel.as_uri()],
                output_dir=work / "out",
                env={
                    "TOOLCHAIN_SOURCES": str(work / "sources"),
                    "TOOLCHAIN_PYTHON": sys.executable,
                    "TOOLCHAIN_VERSION": upstream_version(used[0]) if used else build.version,
                    "TOOLCHAIN_DIGEST": digest,
                },
                no_include_recipe=True,
                console=self.console,
            )
            self._check(build, digest, packages)
            entries = repodata.index_entries(work / "out", packages)
            record = repodata.Record(build.id, digest, round(time.monotonic() - begin, 1), entries)
            self._take_in(record, work / "out")
            removal.remove_tree(work, below=removal.claim_cache())
        return record

    def _check(self, build: sources.Build, digest: str, packages: Sequence[Path]) -> None:
        if not packages:
            raise BuildError(f"the recipe of {build.id} made no package", remedy=f"look at {build.recipe}")
        taken = {name.partition("/")[2]: record.id for record in self.records.values() if record.id != build.id for name in record.packages}
        for package in packages:
            if digest not in package.name.rpartition("-")[2]:
                raise BuildError(
                    f"{package.name} does not carry the digest of its inputs",
                    expected='build.string with ${{ env.get("TOOLCHAIN_DIGEST") }} in it, so that one name never stands for two files',
                    remedy=f"correct {build.recipe}",
                )
            if package.name in taken:
                raise BuildError(f"{build.id} and {taken[package.name]} both make {package.name}", remedy=f"correct {build.recipe}")

    def _take_in(self, record: repodata.Record, output: Path) -> None:
        """New files in, then record and index, then superseded files out: at each moment the index names existing files only."""
        with disk_errors(self.channel):
            for name in record.packages:
                # Built once more for the same inputs, a package has the same name and may have other bytes.
                _forget_extracted(name.partition("/")[2])
                (output / name).chmod(0o644)
                (output / name).replace(self.channel / name)
        self.records[record.id] = record
        repodata.write_record(self.channel, record)
        repodata.write_index(self.channel, self.records.values())
        self._sweep()


def channel_digest(root: Path, only: Sequence[str] | None = None) -> str:
    """Digest over everything that shapes the channel of the source tree ``root``, or ``only`` these builds with what they need.

    Raises:
        ConfigurationError: a recipe or the lock is malformed or incomplete.
    """
    return combined(build_digests(root, sources.select(sources.load(root), only), locking.read(root)))


def ensure(root: Path, console: Console, only: Sequence[str] | None = None) -> ChannelReport:
    """Bring the channel up to date with the source tree ``root``: all of it, or ``only`` these builds with what they need.

    Raises:
        ConfigurationError: a recipe or the lock is malformed, or ``only`` names an unknown build.
        BusyError: another process writes to the channel.
        FetchError, IntegrityError: a locked file cannot be had, or is other bytes.
        ToolchainError: no apt, or an environment cannot be solved.
        BuildError, PackageTestError, ResourceError: as ``rattler.build``. What was finished before stays and is valid.
    """
    every = sources.load(root)
    lock = locking.read(root)
    chosen = sources.select(every, only)
    digests = build_digests(root, chosen, lock)
    channel = toolchain_channel()
    removal.claim_cache()
    with exclusive(channel, "the toolchain channel"):
        builder = _Builder(root, channel, console, Fetcher(cache_root(), console), repodata.read_records(channel))
        for subdir in repodata.SUBDIRS:
            (channel / subdir).mkdir(parents=True, exist_ok=True)
        builder.clean(build.id for build in every)
        outcomes = []
        for build in chosen:
            record = builder.records.get(build.id)
            reused = record is not None and record.digest == digests[build.id]
            if record is None or not reused:
                record = builder.build(build, digests[build.id], files_of(build, lock))
            names = tuple(sorted(name.partition("/")[2] for name in record.packages))
            outcomes.append(Outcome(build.id, "reused" if reused else "built", 0.0 if reused else record.seconds, record.size, names))
    return ChannelReport(channel, combined(digests), tuple(outcomes))
