# SPDX-License-Identifier: Apache-2.0
"""Resolves ``sources.toml`` into ``lock.toml``: what the mirrors have now, with hashes from their signed indexes; nothing is downloaded."""

from __future__ import annotations

import functools
import re
import subprocess
from collections import defaultdict
from typing import TYPE_CHECKING

from vllm_build.errors import ConfigurationError, FetchError
from vllm_build.locks import exclusive
from vllm_build.paths import cache_root
from vllm_build.toolchain import lock as locking
from vllm_build.toolchain import pypi, sources
from vllm_build.toolchain.fetch import Fetcher
from vllm_build.toolchain.lock import LockedFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from vllm_build.console import Console
    from vllm_build.toolchain.apt import PrivateApt

    #: pip takes one interpreter per call: requirements of all builds by (python, abi), and where each one belongs.
    Wanted = Mapping[tuple[str, str | None], list[tuple[str, int, str, str]]]


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
    return -1 if subprocess.run(["dpkg", "--compare-versions", one, "lt", other], check=False).returncode == 0 else 1


def suite_versions(madison: str, suite: str) -> list[str]:
    """Versions in ``suite`` from ``apt-cache madison`` lines ``name | version | address suite/main ...``, newest first."""
    versions = set()
    for line in madison.splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) == 3 and f" {suite}/main " in f" {parts[2]} ":  # noqa: PLR2004 -- the three columns of madison
            versions.add(parts[1])
    return sorted(versions, key=functools.cmp_to_key(_compare), reverse=True)


def _missing(name: str, suite: str) -> FetchError:
    return FetchError(
        f"Debian {suite} has no package {name!r}", expected="a name in that suite's main component", remedy="correct sources.toml"
    )


def _binary(apt: PrivateApt, build: str, position: int, suite: str, name: str) -> LockedFile:
    versions = suite_versions("\n".join(line for line in apt.show(["madison", name]).splitlines() if line.endswith(" Packages")), suite)
    for paragraph in paragraphs(apt.show(["show", f"{name}={versions[0]}"])) if versions else []:
        if paragraph.get("Package") == name and paragraph.get("Version") == versions[0]:
            return LockedFile(
                build=build,
                position=position,
                type="apt",
                name=name,
                version=versions[0],
                suite=suite,
                filename=paragraph["Filename"].rpartition("/")[2],
                sha256=paragraph["SHA256"],
                size=int(paragraph["Size"]),
            )
    raise _missing(name, suite)


def _source(apt: PrivateApt, build: str, position: int, suite: str, name: str) -> list[LockedFile]:
    versions = suite_versions("\n".join(line for line in apt.show(["madison", name]).splitlines() if line.endswith(" Sources")), suite)
    for paragraph in paragraphs(apt.show(["showsrc", "--only-source", name])) if versions else []:
        if paragraph.get("Package", paragraph.get("Source")) == name and paragraph.get("Version") == versions[0]:
            rows = [line.split() for line in paragraph["Checksums-Sha256"].splitlines() if line]
            return [
                LockedFile(
                    build=build,
                    position=position,
                    type="apt-source",
                    name=name,
                    version=versions[0],
                    suite=suite,
                    filename=file,
                    sha256=sha256,
                    size=int(size),
                )
                for sha256, size, file in rows
            ]
    raise _missing(name, suite)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _wheels(wanted: Wanted, fetcher: Fetcher) -> list[LockedFile]:
    files: list[LockedFile] = []
    for (python, abi), items in sorted(wanted.items(), key=lambda entry: (entry[0][0], entry[0][1] or "")):
        rounds: list[list[tuple[str, int, str, str]]] = []
        for item in sorted(set(items)):
            # One call cannot hold two versions of a name: later ones go into another round.
            name = item[2].partition("==")[0]
            for batch in rounds:
                if all(other[2] == item[2] or _canonical(other[2].partition("==")[0]) != _canonical(name) for other in batch):
                    batch.append(item)
                    break
            else:
                rounds.append([item])
        for batch in rounds:
            with fetcher.store.incoming() as folder:
                found = pypi.resolve(sorted({item[2] for item in batch}), folder, python=python, abi=abi)
            by_name = {_canonical(wheel.name): wheel for wheel in found}
            for build, position, requirement, choice in batch:
                wheel = by_name[_canonical(requirement.partition("==")[0].strip())]
                files.append(
                    LockedFile(
                        build=build,
                        position=position,
                        type="pypi",
                        name=wheel.name,
                        version=wheel.version,
                        python=python,
                        abi=abi or "",
                        choice=choice,
                        filename=wheel.filename,
                        sha256=wheel.sha256,
                    )
                )
    return files


def resolve(builds: Iterable[sources.Build], fetcher: Fetcher) -> list[LockedFile]:
    """Locked files for ``builds`` as the mirrors have them now.

    Raises:
        FetchError: a package or version does not exist there, or no mirror answers.
        ToolchainError: Debian packages are wanted and this machine has no apt.
    """
    files: list[LockedFile] = []
    wanted: defaultdict[tuple[str, str | None], list[tuple[str, int, str, str]]] = defaultdict(list)
    for build in builds:
        for position, source in enumerate(build.sources):
            if isinstance(source, sources.PypiSource):
                group = wanted[source.python, source.abi]
                group.append((build.id, position, source.requirement, "first" if source.alternative else ""))
                group.extend((build.id, position, text, "second") for text in (source.alternative, *source.extras) if text)
                continue
            apt = fetcher.apt()
            apt.refresh(force=True)
            if isinstance(source, sources.AptSource):
                files.extend(_binary(apt, build.id, position, source.suite, name) for name in source.packages)
            else:
                files.extend(_source(apt, build.id, position, source.suite, source.package))
    return files + _wheels(wanted, fetcher)


def update(root: Path, console: Console, only: Sequence[str] | None = None) -> list[LockedFile]:
    """Rewrite ``toolchain/lock.toml``, or the entries of ``only``; return the entries that are new.

    Raises:
        ConfigurationError: ``only`` names an unknown build.
        BusyError: another update runs; others as ``resolve``.
    """
    builds = sources.load(root)
    unknown = sorted(set(only or ()) - {build.id for build in builds})
    if unknown:
        raise ConfigurationError(
            f"no build of the toolchain is called {unknown[0]!r}", expected="one of " + ", ".join(sorted(b.id for b in builds))
        )
    chosen = [build for build in builds if only is None or build.id in only]
    with exclusive(cache_root() / "apt", "the private package lists"):
        before = locking.read(root)
        with console.step(f"resolve the sources of {len(chosen)} toolchain packages"):
            resolved = resolve(chosen, Fetcher(cache_root(), console))
        # Entries of builds that no recipe makes any more go, entries of the others stay.
        kept = [f for name, group in before.files.items() if name in {b.id for b in builds} - {b.id for b in chosen} for f in group]
        after = locking.Lock.of([*kept, *resolved])
        locking.write(root, after)
    known = {file for group in before.files.values() for file in group}
    return [file for group in after.files.values() for file in group if file not in known]
