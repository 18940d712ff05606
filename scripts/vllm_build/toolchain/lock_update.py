# SPDX-License-Identifier: Apache-2.0
"""Resolves ``sources.toml`` and ``wheels.toml`` into ``lock.toml``: what the mirrors have now.

Hashes come from the mirrors' signed indexes, and what a wheel requires from its metadata; nothing
else is downloaded.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from packaging.specifiers import SpecifierSet

from vllm_build.toolchain import (
    debian_suites,
    pypi,
    toolchain_builds,
    toolchain_lock,
    wheel_metadata,
    wheel_table,
)
from vllm_build.toolchain.locked_files import Fetcher
from vllm_build.toolchain.toolchain_lock import LockedFile
from vllm_build.util import removal
from vllm_build.util.errors import ConfigurationError, FetchError
from vllm_build.util.locks import exclusive
from vllm_build.util.paths import cache_root
from vllm_build.util.processes import children

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from vllm_build.toolchain.apt import PrivateApt
    from vllm_build.util.console import Console

    #: pip takes one interpreter per call: requirements of all builds by (python, abi), and where
    #: each one belongs.
    Wanted = Mapping[tuple[str, str | None], list[tuple[str, int, str]]]


def paragraphs(text: str) -> list[dict[str, str]]:
    """Debian control paragraphs as dictionaries; continuation lines are joined with newlines."""
    result: list[dict[str, str]] = []
    for block in re.split(r"\n[ \t]*\n", text.strip("\n")):
        fields: dict[str, str] = {}
        key = ""
        for line in block.splitlines():
            if line[:1] in (" ", "\t"):
                if key:
                    fields[key] += "\n" + line.strip()
            elif ":" in line:
                key, _, value = line.partition(":")
                fields[key] = value.strip()
        if fields:
            result.append(fields)
    return result


def _compare(one: str, other: str) -> int:
    """Order of two Debian versions, by dpkg itself (one process per pair: a suite rarely has more than two versions of a name)."""
    if one == other:
        return 0
    return (
        -1 if children.run(["dpkg", "--compare-versions", one, "lt", other]).returncode == 0 else 1
    )


def suite_versions(madison: str, suite: str) -> list[str]:
    """Versions in ``suite`` from ``apt-cache madison`` lines ``name | version | address suite/component ...``, newest first."""
    place = "/".join(debian_suites.split_suite(suite))
    versions = set()
    for line in madison.splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) == 3 and f" {place} " in f" {parts[2]} ":  # noqa: PLR2004 -- the three columns of madison
            versions.add(parts[1])
    return sorted(versions, key=functools.cmp_to_key(_compare), reverse=True)


@dataclass(frozen=True)
class _Place:
    """Where a package belongs: the build, and its place among the build's packages."""

    build: str
    position: int


#: Packages of one kind, binary or source: (suite, name) and where each belongs.
_Debian: TypeAlias = "list[tuple[_Place, str, str]]"


def _found(madison: str, wanted: _Debian, column: str) -> dict[tuple[str, str], str]:
    """The newest version of every wanted (suite, name) in the output of ``apt-cache madison``."""
    lines: defaultdict[str, list[str]] = defaultdict(list)
    for line in madison.splitlines():
        if line.endswith(f" {column}"):
            lines[line.partition("|")[0].strip()].append(line)
    found = {}
    for _, suite, name in wanted:
        versions = suite_versions("\n".join(lines[name]), suite)
        if not versions:
            raise FetchError(
                f"Debian {suite} has no package {name!r}",
                expected=f"a name in the component {debian_suites.split_suite(suite)[1]} of "
                "that suite",
                remedy="correct sources.toml",
            )
        found[suite, name] = versions[0]
    return found


def _binaries(apt: PrivateApt, wanted: _Debian) -> list[LockedFile]:
    names = sorted({name for _, _, name in wanted})
    versions = _found(apt.show(["madison", *names]), wanted, "Packages")
    shown = paragraphs(
        apt.show(
            ["show", *(f"{name}={version}" for (_, name), version in sorted(versions.items()))]
        )
    )
    by_version = {
        (paragraph.get("Package"), paragraph.get("Version")): paragraph for paragraph in shown
    }
    files = []
    for place, suite, name in wanted:
        paragraph = by_version[name, versions[suite, name]]
        files.append(
            LockedFile(
                build=place.build,
                position=place.position,
                type="apt",
                name=name,
                version=versions[suite, name],
                suite=suite,
                filename=paragraph["Filename"].rpartition("/")[2],
                sha256=paragraph["SHA256"],
                size=int(paragraph["Size"]),
            )
        )
    return files


def _sources(apt: PrivateApt, wanted: _Debian) -> list[LockedFile]:
    names = sorted({name for _, _, name in wanted})
    versions = _found(apt.show(["madison", *names]), wanted, "Sources")
    by_version = {
        (paragraph.get("Package"), paragraph.get("Version")): paragraph
        for paragraph in paragraphs(apt.show(["showsrc", "--only-source", *names]))
    }
    files = []
    for place, suite, name in wanted:
        rows = by_version[name, versions[suite, name]]["Checksums-Sha256"].splitlines()
        for sha256, size, filename in (row.split() for row in rows if row):
            files.append(
                LockedFile(
                    build=place.build,
                    position=place.position,
                    type="apt-source",
                    name=name,
                    version=versions[suite, name],
                    suite=suite,
                    filename=filename,
                    sha256=sha256,
                    size=int(size),
                )
            )
    return files


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _requirements(wheel: wheel_table.Wheel | None, found: pypi.Wheel) -> dict[str, Any]:
    """What the lock says of the requirements of a wheel of the table; nothing for others."""
    if wheel is None:
        return {}
    return {
        "requires": wheel_metadata.relevant(found.requires, wheel.extras),
        "requires_python": str(SpecifierSet(found.requires_python)),
    }


def _require_licenses(table: Iterable[wheel_table.Wheel], found: Mapping[str, pypi.Wheel]) -> None:
    """Refuse wheels of the table whose license neither their metadata nor their line names, all at once.

    Raises:
        ConfigurationError: there are such wheels.
    """
    nameless = [
        w
        for w in table
        if not w.license and (wheel := found.get(w.distribution)) is not None and not wheel.license
    ]
    if nameless:
        raise ConfigurationError(
            "\n".join(
                (
                    f"{wheel.where}: the metadata of {wheel.requirement} names no license that "
                    "SPDX "
                    "knows"
                )
                for wheel in nameless
            ),
            expected='{ requirement = "…", license = "BSD-3-Clause" }, by the license text',
            remedy="add the license to each of these lines",
        )


def _wheels(wanted: Wanted, table: Mapping[str, wheel_table.Wheel]) -> list[LockedFile]:
    files: list[LockedFile] = []
    for (python, abi), items in sorted(
        wanted.items(), key=lambda entry: (entry[0][0], entry[0][1] or "")
    ):
        rounds: list[list[tuple[str, int, str]]] = []
        for item in sorted(set(items)):
            # One call cannot hold two versions of a name: later ones go into another round.
            name = item[2].partition("=")[0]
            for batch in rounds:
                if all(
                    other[2] == item[2]
                    or _canonical(other[2].partition("=")[0]) != _canonical(name)
                    for other in batch
                ):
                    batch.append(item)
                    break
            else:
                rounds.append([item])
        for batch in rounds:
            found = pypi.resolve(sorted({item[2] for item in batch}), python=python, abi=abi)
            by_name = {_canonical(wheel.name): wheel for wheel in found}
            _require_licenses((table[build] for build, _, _ in batch if build in table), by_name)
            for build, position, requirement in batch:
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
    return files


def resolve(builds: Sequence[toolchain_builds.Build], fetcher: Fetcher) -> list[LockedFile]:
    """Locked files for ``builds`` as the mirrors have them now.

    Raises:
        FetchError: a package or version does not exist there, or no mirror answers.
        ToolchainError: Debian packages are wanted and this machine has no apt.
    """
    binaries: _Debian = []
    packages: _Debian = []
    wanted: defaultdict[tuple[str, str | None], list[tuple[str, int, str]]] = defaultdict(list)
    for build in builds:
        position = 0
        for source in build.sources:
            if isinstance(source, toolchain_builds.PypiSource):
                wanted[source.python, source.abi].append((build.id, position, source.requirement))
                position += 1
            elif isinstance(source, toolchain_builds.AptSource):
                binaries.extend(
                    (_Place(build.id, position + place), source.suite, name)
                    for place, name in enumerate(source.packages)
                )
                position += len(source.packages)
            else:
                packages.append((_Place(build.id, position), source.suite, source.package))
                position += 1
    files: list[LockedFile] = []
    for lists in debian_suites.GROUPS:
        mine, theirs = (
            [item for item in group if debian_suites.find_group(item[1]) == lists]
            for group in (binaries, packages)
        )
        if mine or theirs:
            fetcher.apt(lists).refresh(force=True)
            files += _binaries(fetcher.apt(lists), mine) if mine else []
            files += _sources(fetcher.apt(lists), theirs) if theirs else []
    return files + _wheels(
        wanted, {build.id: build.wheel for build in builds if build.wheel is not None}
    )


def update(root: Path, console: Console, only: Sequence[str] | None = None) -> list[LockedFile]:
    """Rewrite ``toolchain/lock.toml``, or the entries of ``only``; return the entries that are new.

    Raises:
        ConfigurationError: ``only`` names an unknown build.
        BusyError: another update runs; others as ``resolve``.
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
            resolved = resolve(chosen, Fetcher(cache_root(), console))
        # Entries of builds that no recipe makes any more go, entries of the others stay.
        kept = [
            f
            for name, group in before.files.items()
            if name in {b.id for b in builds} - {b.id for b in chosen}
            for f in group
        ]
        after = toolchain_lock.Lock.of([*kept, *resolved])
        # What a new wheel requires may be missing: the lock stays as it was until everything is
        # there.
        toolchain_builds.load(root, after)
        toolchain_lock.write(root, after)
    known = {file for group in before.files.values() for file in group}
    return [file for group in after.files.values() for file in group if file not in known]
