# SPDX-License-Identifier: Apache-2.0
"""Builds the packages of the local channel whose inputs have changed.

The channel stays usable while it is updated.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.packing import channel_index, finish, recipe_builder
from vllm_build.toolchain import (
    build_order,
    channel_records,
    channel_views,
    second_builder,
    toolchain_builds,
    toolchain_lock,
    wheel_libraries,
    wheel_recipe,
    wheel_table,
)
from vllm_build.toolchain.channel_digests import build_digests, combined, files_of
from vllm_build.toolchain.locked_files import Fetcher
from vllm_build.util import locks, removal
from vllm_build.util.errors import BuildError
from vllm_build.util.files import disk_errors, sha256_of
from vllm_build.util.paths import cache_root

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from vllm_build.util.console import Console

#: zstd level of the channel's packages. They are read from a disk and not over a network, so speed
#: matters more than size.
_LEVEL = 1


@dataclass(frozen=True)
class Outcome:
    """The result of one build.

    Attributes:
        id: the build.
        action: ``reused`` or ``built``.
        seconds: wall time of the build; 0 if it was reused.
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
    """The channel after a run, as one source tree sees it."""

    path: Path
    digest: str
    outcomes: tuple[Outcome, ...]

    @property
    def url(self) -> str:
        """The channel's address for rattler-build and conda."""
        return self.path.as_uri()

    @property
    def built(self) -> int:
        """The number of builds that ran."""
        return sum(outcome.action == "built" for outcome in self.outcomes)


@dataclass
class _Builder:
    root: Path
    console: Console
    fetcher: Fetcher
    inherited: Mapping[str, str]
    lock: toolchain_lock.Lock
    digests: Mapping[str, str]
    #: The digests of all builds of the tree, which name its view.
    whole: Mapping[str, str]

    @classmethod
    def of(
        cls,
        root: Path,
        console: Console,
        inherited: Mapping[str, str],
        chosen: Sequence[toolchain_builds.Build],
        every: Sequence[toolchain_builds.Build],
    ) -> _Builder:
        """Make the builder of ``chosen``, a selection of the builds ``every`` of the tree."""
        lock = toolchain_lock.read(root)
        return cls(
            root,
            console,
            Fetcher(cache_root(), console, inherited),
            inherited,
            lock,
            build_digests(root, chosen, lock),
            channel_views.digests_of(root, every, lock),
        )

    def record(self, build: toolchain_builds.Build) -> channel_records.Record | None:
        """The record of a build that has been made."""
        return channel_records.read_record(channel_views.pool(), build.id, self.digests[build.id])

    def provide(self, build: toolchain_builds.Build) -> tuple[channel_records.Record, bool]:
        """Make one build if it does not exist; return its record, and whether this made it."""
        record, made = self.record(build), False
        if record is not None:
            return record, made
        name = f"{build.id}-{self.digests[build.id]}"
        with channel_views.building(name, self.console.info):
            # Another process may have made it before this one got the lock.
            record = self.record(build)
            if record is None:
                record, made = self.build(build), True
        channel_views.refresh(self.whole)
        return record, made

    def fetch_wheels(self, builds: Sequence[toolchain_builds.Build]) -> None:
        """Fetch the wheels of the table for ``builds`` together: a call of pip for each is slow."""
        files = [f for build in builds if build.wheel for f in files_of(build, self.lock)]
        if files:
            with self.console.step(f"fetch {len(files)} wheels for the toolchain channel"):
                self._fetch(files)

    def _fetch(self, files: Sequence[toolchain_lock.LockedFile]) -> None:
        # All downloads share one private apt, so they run one at a time.
        with locks.turn(cache_root() / "downloads" / ".lock", "downloads", say=self.console.info):
            self.fetcher.ensure(files)

    def build(self, build: toolchain_builds.Build) -> channel_records.Record:
        """Run one build against the tree's view and move its packages into the pool."""
        digest, files = self.digests[build.id], files_of(build, self.lock)
        work = cache_root() / "work" / "toolchain" / f"{build.id}-{digest}"
        begin = time.monotonic()
        with self.console.step(f"build {build.id} for the toolchain channel"):
            self._fetch(files)
            removal.remove_tree(work, below=removal.claim_cache())
            self.fetcher.folder_of(files, work / "sources")
            recipe = build.recipe
            if build.wheel is not None:
                wheel = work / "sources" / files[0].filename
                recipe = wheel_recipe.write(
                    self.root, build.wheel, files[0], wheel, build.run, work
                )
                libraries = wheel_table.read(self.root).libraries
                wheel_libraries.require(build.wheel.wheel, wheel, build.run, libraries)
            packages = recipe_builder.build(
                recipe,
                variants={key: [value] for key, value in build.variant.items()},
                channels=[channel_views.folder_for(self.whole).as_uri()],
                output_dir=work / "out",
                inherited=self.inherited,
                env={
                    "TOOLCHAIN_SOURCES": str(work / "sources"),
                    "TOOLCHAIN_PYTHON": sys.executable,
                    "TOOLCHAIN_VERSION": files[0].upstream_version if files else build.version,
                    "TOOLCHAIN_DIGEST": digest,
                },
                no_include_recipe=True,
                console=self.console,
            )
            self._check(build, digest, packages)
            finish.finish(packages, work, self.root, level=_LEVEL)
            entries = channel_index.index_entries(work / "out", packages)
            record = channel_records.Record(
                build.id, digest, round(time.monotonic() - begin, 1), entries
            )
            self._add(record, work / "out")
            removal.remove_tree(work, below=removal.claim_cache())
        return record

    def _check(self, build: toolchain_builds.Build, digest: str, packages: Sequence[Path]) -> None:
        if not packages:
            raise BuildError(
                f"the recipe of {build.id} made no package", remedy=f"correct {build.recipe}"
            )
        for package in packages:
            if digest not in package.name.rpartition("-")[2]:
                raise BuildError(
                    f"the build string of {package.name} lacks the digest of its inputs",
                    expected='${{ env.get("TOOLCHAIN_DIGEST") }} in build.string, so that two '
                    "different files never have the same name",
                    remedy=f"correct {build.recipe}",
                )

    def _add(self, record: channel_records.Record, output: Path) -> None:
        """Move the packages from ``output`` into the pool, then write the record that names them.

        If the process is killed in between, there is no record and the build runs again.
        """
        pool = channel_views.pool()
        with disk_errors(pool):
            for name, entry in record.packages.items():
                if (pool / name).is_file() and sha256_of(pool / name) != entry.get("sha256"):
                    # The old file is damaged, and so is its extracted content in the cache.
                    channel_views.forget_extracted(name.partition("/")[2])
                (output / name).chmod(0o644)
                (output / name).replace(pool / name)
        channel_records.write_record(pool, record)


def channel_digest(root: Path, only: Sequence[str] | None = None) -> str:
    """Digest over all inputs of the channel of the source tree ``root``.

    Args:
        root: the source tree.
        only: ids of builds: the digest then covers these and everything they need. ``None`` covers
            all builds that are not made on request only.

    Raises:
        ConfigurationError: a recipe or the lock is malformed or incomplete.
    """
    return combined(
        build_digests(
            root,
            toolchain_builds.select(toolchain_builds.load(root), only),
            toolchain_lock.read(root),
        )
    )


def ensure(
    root: Path,
    console: Console,
    only: Sequence[str] | None = None,
    *,
    inherited: Mapping[str, str],
) -> ChannelReport:
    """Bring the channel up to date with the source tree ``root``.

    Several processes may do this at the same time, for this tree or another one. If another process
    is making a build that this one needs, this one waits for it. After an error, all builds that
    were finished remain valid.

    A second process makes wheels while this one makes recipes, where there are processors for both.

    Args:
        root: the source tree.
        console: shows the progress.
        only: ids of builds: only these and everything they need are made. ``None`` makes all builds
            that are not made on request only.
        inherited: the variables that apt, pip and builds start from.

    Raises:
        ConfigurationError: a recipe or the lock is malformed, or ``only`` names an unknown build.
        BusyError: the channel is being cleaned.
        FetchError: a locked file cannot be downloaded.
        IntegrityError: a downloaded file does not have the locked sha256.
        ToolchainError: apt is missing, or an environment cannot be solved.
        BuildError, PackageTestError, ResourceError: as ``recipe_builder.build``.
    """
    every = toolchain_builds.load(root)
    chosen = toolchain_builds.select(every, only)
    builder = _Builder.of(root, console, inherited, chosen, every)
    removal.claim_cache()
    with channel_views.in_use(console.info):
        for subdir in channel_index.SUBDIRS:
            (channel_views.pool() / subdir).mkdir(parents=True, exist_ok=True)
        view = channel_views.refresh(builder.whole)
        first, rest = build_order.split(chosen)
        order = (*first, *rest)
        missing = {build.id: build for build in order if builder.record(build) is None}
        made = set[str]()
        # Without a Debian mirror, the first recipe fails before all wheels are downloaded.
        ahead = next(iter(missing.values()), None)
        if ahead is not None and ahead.wheel is None and builder.provide(ahead)[1]:
            made.add(ahead.id)
        builder.fetch_wheels(list(missing.values()))
        # From the other end, so that both processes meet in the middle.
        second = [build.id for build in reversed(rest) if build.id in missing and not build.needs]
        records = {}
        with second_builder.running(root, second, inherited, console) as made_there:
            for build in order:
                records[build.id], made_here = builder.provide(build)
                if made_here:
                    made.add(build.id)
        made |= made_there
    return ChannelReport(
        view,
        combined(builder.digests),
        tuple(_outcome(records[build.id], made=build.id in made) for build in chosen),
    )


def _outcome(record: channel_records.Record, *, made: bool) -> Outcome:
    return Outcome(
        record.id,
        "built" if made else "reused",
        record.seconds if made else 0.0,
        record.size,
        tuple(sorted(name.partition("/")[2] for name in record.packages)),
    )


def build_wheels(
    root: Path, ids: Sequence[str], *, console: Console, inherited: Mapping[str, str]
) -> Iterator[str]:
    """Make builds of wheels that need no other build, and yield the id of each that this made.

    The wheels have been downloaded, and the caller's parent keeps the channel from being cleaned.

    Raises:
        VllmBuildError: as ``ensure``.
    """
    every = toolchain_builds.load(root)
    chosen = {build.id: build for build in every if build.id in ids}
    builder = _Builder.of(root, console, inherited, list(chosen.values()), every)
    for name in ids:
        _, made = builder.provide(chosen[name])
        if made:
            yield name
