# SPDX-License-Identifier: Apache-2.0
"""Finds the newest packages of Debian suites, with their files and hashes, in apt's lists."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from vllm_build.toolchain import debian_suites
from vllm_build.toolchain.toolchain_lock import LockedFile
from vllm_build.util.errors import FetchError
from vllm_build.util.processes import children

if TYPE_CHECKING:
    from vllm_build.toolchain.apt import PrivateApt


def paragraphs(text: str) -> list[dict[str, str]]:
    """Parse Debian control paragraphs; continuation lines are joined with newlines."""
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
    """Compare two Debian versions with dpkg.

    This starts a process per pair; a suite rarely has more than two versions of a package.
    """
    if one == other:
        return 0
    return (
        -1 if children.run(["dpkg", "--compare-versions", one, "lt", other]).returncode == 0 else 1
    )


def suite_versions(madison: str, suite: str) -> list[str]:
    """Versions of a package in ``suite``, newest first.

    Args:
        madison: lines ``name | version | address suite/component ...`` of ``apt-cache madison``.
        suite: a suite as ``sources.toml`` spells it.
    """
    place = "/".join(debian_suites.split_suite(suite))
    versions = set()
    for line in madison.splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) == 3 and f" {place} " in f" {parts[2]} ":  # noqa: PLR2004 -- the three columns of madison
            versions.add(parts[1])
    return sorted(versions, key=functools.cmp_to_key(_compare), reverse=True)


@dataclass(frozen=True)
class Place:
    """The build that a package belongs to, and its position among the build's packages."""

    build: str
    position: int


#: Packages of one kind, binary or source: (place, suite, name).
Debian: TypeAlias = "list[tuple[Place, str, str]]"


def _found(madison: str, wanted: Debian, column: str) -> dict[tuple[str, str], str]:
    """Find the newest version of every wanted (suite, name) in ``apt-cache madison``'s output."""
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
                expected=f"a package in the component {debian_suites.split_suite(suite)[1]} of "
                "that suite",
                remedy="correct sources.toml",
            )
        found[suite, name] = versions[0]
    return found


def find_binaries(apt: PrivateApt, wanted: Debian) -> list[LockedFile]:
    """Find the files of binary packages.

    Raises:
        FetchError: a suite lacks a package.
    """
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


def find_sources(apt: PrivateApt, wanted: Debian) -> list[LockedFile]:
    """Find the files of source packages.

    Raises:
        FetchError: a suite lacks a package.
    """
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
