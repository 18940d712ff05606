# SPDX-License-Identifier: Apache-2.0
"""Updates ``lock.toml`` from ``sources.toml`` and ``wheels.toml`` with what the mirrors have now.

Hashes come from the mirrors' signed indexes, and the requirements of a wheel from its metadata.
Nothing else is downloaded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from packaging.specifiers import SpecifierSet

from vllm_build.toolchain import (
    debian_index,
    debian_suites,
    pip_selection,
    pypi,
    toolchain_builds,
    toolchain_lock,
    wheel_requirements,
    wheel_table,
)
from vllm_build.toolchain.locked_files import Fetcher
from vllm_build.toolchain.toolchain_lock import LockedFile
from vllm_build.util import removal
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.locks import exclusive
from vllm_build.util.paths import cache_root

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from vllm_build.util.console import Console

    #: Build, position and requirement of a wheel.
    Item = tuple[str, int, str]
    #: The wheels of all builds by (python, abi): one call of pip resolves for one interpreter.
    Wanted = Mapping[tuple[str, str | None], list[Item]]

#: The number of versions that a message about a missing version shows, newest first.
_SHOWN = 4


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _requirements(target: wheel_table.Target | None, found: pypi.Wheel) -> dict[str, Any]:
    """The requirements that the lock keeps of a wheel of the table; empty for other wheels."""
    if target is None:
        return {}
    return {
        "requires": wheel_requirements.relevant(found.requires, target.wheel.extras),
        "requires_python": str(SpecifierSet(found.requires_python)),
    }


def _require_licenses(table: Iterable[wheel_table.Wheel], found: Mapping[str, pypi.Wheel]) -> None:
    """Check that each wheel of the table has a license in its metadata or in its line.

    Raises:
        ConfigurationError: a wheel has none; the message names all of these.
    """
    nameless = [
        w
        for w in table
        if not w.license and (wheel := found.get(w.distribution)) is not None and not wheel.license
    ]
    if nameless:
        raise ConfigurationError(
            "\n".join(
                f"{wheel.where}: the metadata of {wheel.requirement} names no SPDX license"
                for wheel in nameless
            ),
            expected='{ requirement = "…", license = "BSD-3-Clause" }, according to the license '
            "text",
            remedy="add the license to each of these lines",
        )


def _resolve(
    requirements: Sequence[str], python: str, abi: str | None, inherited: Mapping[str, str]
) -> tuple[list[pypi.Wheel], list[pypi.MissingVersionError]]:
    """Resolve those of ``requirements`` that the index has, and return the errors for the others.

    Raises:
        MissingVersionError: the index lacks one, and pip does not say which.
        FetchError, ConfigurationError, IntegrityError: as ``pypi.resolve``.
    """
    rest, missing = list(requirements), list[pypi.MissingVersionError]()
    while rest:
        try:
            return pypi.resolve(rest, python=python, abi=abi, inherited=inherited), missing
        except pypi.MissingVersionError as error:
            if error.requirement not in rest:
                raise
            rest.remove(error.requirement)
            missing.append(error)
    return [], missing


def _absence(error: pypi.MissingVersionError, python: str, abi: str | None) -> str:
    """What the index lacks, and what it has instead."""
    if abi == pip_selection.PURE:
        what = f"pure wheel for any platform of {error.requirement}"
    else:
        what = f"wheel of {error.requirement} for Python {python}" + (f" ({abi})" if abi else "")
    others = ", ".join(reversed(error.others[-_SHOWN:]))
    return f"pip finds no {what}; the index has {others or 'none of any version'}"


def _rounds(items: Iterable[Item]) -> list[list[Item]]:
    """Split ``items`` into calls of pip, which resolves one version of a distribution per call."""
    rounds: list[list[Item]] = []
    for item in sorted(set(items)):
        name = item[2].partition("=")[0]
        for batch in rounds:
            if all(
                other[2] == item[2] or _canonical(other[2].partition("=")[0]) != _canonical(name)
                for other in batch
            ):
                batch.append(item)
                break
        else:
            rounds.append([item])
    return rounds


def _wheels(
    wanted: Wanted, builds: Mapping[str, toolchain_builds.Build], inherited: Mapping[str, str]
) -> list[LockedFile]:
    files: list[LockedFile] = []
    absent: dict[str, None] = {}
    table = {name: build.wheel for name, build in builds.items() if build.wheel is not None}
    batches = [
        (python, abi, batch)
        for (python, abi), items in sorted(
            wanted.items(), key=lambda entry: (entry[0][0], entry[0][1] or "")
        )
        for batch in _rounds(items)
    ]
    for python, abi, batch in batches:
        found, missing = _resolve(sorted({item[2] for item in batch}), python, abi, inherited)
        lacking = {error.requirement: _absence(error, python, abi) for error in missing}
        absent |= {
            f"{builds[build].where}: {lacking[requirement]}": None
            for build, _, requirement in batch
            if requirement in lacking
        }
        by_name = {_canonical(wheel.name): wheel for wheel in found}
        _require_licenses((table[build].wheel for build, _, _ in batch if build in table), by_name)
        for build, position, requirement in batch:
            if requirement in lacking:
                continue
            wheel = by_name[_canonical(requirement.partition("=")[0].strip())]
            files.append(
                LockedFile(
                    build=build,
                    position=position,
                    type="pypi",
                    name=wheel.name,
                    version=wheel.version,
                    python=python,
                    abi=abi or "",
                    filename=wheel.filename,
                    sha256=wheel.sha256,
                    **_requirements(table.get(build), wheel),
                )
            )
    if absent:
        raise pypi.MissingVersionError(
            "\n".join(absent),
            expected="versions that the configured index has",
            remedy=f"correct these versions, then {toolchain_lock.UPDATE_COMMAND}",
        )
    return files


def resolve(builds: Sequence[toolchain_builds.Build], fetcher: Fetcher) -> list[LockedFile]:
    """Find the files for ``builds`` that the mirrors have now.

    Raises:
        FetchError: a mirror lacks a package or version, or does not answer.
        ToolchainError: a build needs Debian packages, and this machine has no apt.
    """
    binaries: debian_index.Debian = []
    packages: debian_index.Debian = []
    wanted: defaultdict[tuple[str, str | None], list[Item]] = defaultdict(list)
    for build in builds:
        position = 0
        for source in build.sources:
            if isinstance(source, toolchain_builds.PypiSource):
                wanted[source.python, source.abi].append((build.id, position, source.requirement))
                position += 1
            elif isinstance(source, toolchain_builds.AptSource):
                binaries.extend(
                    (debian_index.Place(build.id, position + place), source.suite, name)
                    for place, name in enumerate(source.packages)
                )
                position += len(source.packages)
            else:
                packages.append(
                    (debian_index.Place(build.id, position), source.suite, source.package)
                )
                position += 1
    files: list[LockedFile] = []
    for lists in debian_suites.GROUPS:
        mine, theirs = (
            [item for item in group if debian_suites.find_group(item[1]) == lists]
            for group in (binaries, packages)
        )
        if mine or theirs:
            fetcher.apt(lists).refresh(force=True)
            files += debian_index.find_binaries(fetcher.apt(lists), mine) if mine else []
            files += debian_index.find_sources(fetcher.apt(lists), theirs) if theirs else []
    return files + _wheels(wanted, {build.id: build for build in builds}, fetcher.inherited)


def update(
    root: Path,
    console: Console,
    only: Sequence[str] | None = None,
    *,
    inherited: Mapping[str, str],
) -> list[LockedFile]:
    """Rewrite ``toolchain/lock.toml`` and return the entries that are new.

    Args:
        root: the source tree.
        console: shows the progress.
        only: ids of the builds whose entries are updated; ``None`` for all.
        inherited: the variables that apt and pip start from.

    Raises:
        ConfigurationError: ``only`` names an unknown build, or as ``toolchain_builds.load``.
        BusyError: another update is running.
        FetchError, ToolchainError: as ``resolve``.
    """
    builds = toolchain_builds.load(root)
    unknown = sorted(set(only or ()) - {build.id for build in builds})
    if unknown:
        raise ConfigurationError(
            f"no build of the toolchain is called {unknown[0]!r}",
            expected="one of " + ", ".join(sorted(b.id for b in builds)),
        )
    chosen = [build for build in builds if only is None or build.id in only]
    removal.claim_cache()
    with exclusive(cache_root() / "apt", "the private package lists"):
        before = toolchain_lock.read(root)
        with console.step(f"resolve the sources of {len(chosen)} toolchain packages"):
            resolved = resolve(chosen, Fetcher(cache_root(), console, inherited))
        # Entries of builds that were not chosen stay, unless no recipe makes them any more.
        kept = [
            f
            for name, group in before.files.items()
            if name in {b.id for b in builds} - {b.id for b in chosen}
            for f in group
        ]
        after = toolchain_lock.Lock.of([*kept, *resolved])
        # This fails if the channel lacks a requirement of a new wheel. The lock then stays as it
        # was.
        toolchain_builds.load(root, after)
        toolchain_lock.write(root, after)
    known = {file for group in before.files.values() for file in group}
    return [file for group in after.files.values() for file in group if file not in known]
