# SPDX-License-Identifier: Apache-2.0
"""Solves and installs conda environments with py-rattler."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rattler import (
    Client,
    MatchSpec,
    Override,
    PrefixRecord,
    VirtualPackage,
    VirtualPackageOverrides,
    install,
    solve,
)
from rattler.config import Config
from rattler.exceptions import GatewayError, InstallerError, SolverError
from rattler.package_cache import PackageCache, ValidationMode

from vllm_build.conda.environments import edits, intact, prefixes
from vllm_build.packing import channel_index, index_check
from vllm_build.toolchain import channel_views
from vllm_build.util import failures, paths, removal
from vllm_build.util.environ import snapshot
from vllm_build.util.errors import (
    ConfigurationError,
    FetchError,
    IntegrityError,
    PackageTestError,
    ResourceError,
    ToolchainError,
    VllmBuildError,
)
from vllm_build.util.files import disk_errors
from vllm_build.util.processes import children

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from packaging.version import Version
    from rattler import RepoDataRecord

#: Files are copied from the cache, as clones where the file system shares blocks until one of them
#: is written to. Hard links are faster (an environment with torch: 2 to 4 s instead of 4 to 11 s)
#: and save its 1.2 GB, but an edit in one environment would change all others, and the cache.
#: Libraries are no exception: patchelf and strip edit them in place.
_COPIES = "allow-hard-links = false"


def solve_specs(
    specs: Sequence[str],
    channels: Sequence[str],
    prefix: Path | None = None,
    driver: str | None = None,
) -> list[RepoDataRecord]:
    """The records that satisfy ``specs`` on this machine, from ``channels`` alone, earlier channels first.

    Args:
        specs: what is wanted.
        channels: addresses, the most important first.
        prefix: an environment that is updated. Its packages stay, in the same builds where that is
            possible, even when no channel has them; the pins in ``conda-meta/pinned`` hold.
        driver: the release of CUDA to solve for, of :func:`assumed_driver`; None asks the machine,
            or ``CONDA_OVERRIDE_CUDA``.

    Raises:
        ToolchainError: no combination of packages satisfies them, or a channel cannot be read; the
            message is the solver's explanation.
        IntegrityError: the index of a channel is damaged. ResourceError: the machine ran out of
            something.
    """
    index_check.require_indexes(channels)

    async def run() -> list[RepoDataRecord]:
        # The solver knows nothing of the machine unless told: __glibc, __cuda and the like are
        # passed in.
        overrides = VirtualPackageOverrides.from_env()
        if driver is not None:
            overrides.cuda = Override.string(driver)
        virtual = VirtualPackage.detect(overrides)
        installed = _installed(prefix) if prefix else []
        wanted = [MatchSpec(spec) for spec in specs]
        named = {spec.name.normalized for spec in wanted if spec.name is not None}
        wanted += [
            MatchSpec(record.name.normalized)
            for record in installed
            if record.name.normalized not in named
        ]
        found: list[RepoDataRecord] = await solve(
            sources=list(channels),
            specs=wanted,
            virtual_packages=virtual,
            locked_packages=installed,
            constraints=_pinned(prefix) if prefix else None,
        )
        return found

    try:
        return asyncio.run(run())
    except (SolverError, GatewayError) as error:
        raise _unsolved(specs, channels, str(error)) from error


def _installed(prefix: Path) -> list[PrefixRecord]:
    return [PrefixRecord.from_path(path) for path in sorted((prefix / "conda-meta").glob("*.json"))]


def _pinned(prefix: Path) -> list[str]:
    pinned = prefix / "conda-meta" / "pinned"
    lines = pinned.read_text(encoding="utf-8").splitlines() if pinned.is_file() else []
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def cuda_driver() -> str | None:
    """The release of CUDA that this machine's driver, or ``CONDA_OVERRIDE_CUDA``, offers; None without one."""
    virtual = [
        package.into_generic()
        for package in VirtualPackage.detect(VirtualPackageOverrides.from_env())
    ]
    return next(
        (str(package.version) for package in virtual if package.name.normalized == "__cuda"), None
    )


def assumed_driver(toolkit: Version | None) -> str | None:
    """The release of CUDA to solve for where a variant is for a CUDA ``toolkit`` and there is no driver; None where nothing is assumed.

    Packages for GPUs are built, installed and loaded on machines without any; solvers refuse them
    there unless they are told.
    """
    return None if toolkit is None or cuda_driver() is not None else str(toolkit)


def _unsolved(specs: Sequence[str], channels: Sequence[str], why: str) -> VllmBuildError:
    if damaged := channel_index.of_rattler(why, channels):
        return damaged
    if said := failures.exhausted(why):
        return _exhausted(f"solving {', '.join(specs)}", said)
    return ToolchainError(
        f"no environment with {', '.join(specs)} can be solved from {', '.join(channels)}\n{why}",
        expected="packages that fit each other and this machine",
        remedy="build what is missing: vllm-build toolchain, vllm-build package",
    )


def create(
    given: Path,
    specs: Sequence[str],
    channels: Sequence[str],
    *,
    force: bool = False,
    update: bool = False,
    keep: Sequence[Path] = (),
    driver: str | None = None,
) -> list[dict[str, str]]:
    """Solve ``specs`` and install them into the prefix ``given``.

    The new environment replaces what is there when it is complete; after an error, or when the
    process is killed, the old one is there. The work is done by a child process: py-rattler 0.28
    sometimes crashes while an interpreter that has installed something ends.

    Args:
        given: the prefix.
        specs: what to install.
        channels: addresses, the most important first.
        force: replace a folder that vllm-build did not make.
        update: where there is an environment, whoever made it, change a copy of it, with all that
            was added to it.
        keep: folders that the prefix must not be and must not hold.
        driver: the release of CUDA to solve for, of :func:`assumed_driver`; None asks the machine,
            or ``CONDA_OVERRIDE_CUDA``.

    Returns:
        Name, version, build and channel of every package.

    Raises:
        ConfigurationError: the prefix is not possible, or holds something that vllm-build did not
            install.
        BusyError: another process installs into the same prefix.
        ToolchainError: the specs cannot be solved.
        FetchError, IntegrityError: a package is missing, or is not the one that its channel lists.
        PackageTestError: the solved packages could not be installed.
        ResourceError: the machine ran out of something: disk, memory, file handles.
    """
    prefix = prefixes.check(given, keep)
    if not force:
        _require(prefix, update=update, contents=False)
    with disk_errors(prefix), prefixes.opened(prefix) as site:
        if not force:
            # Again, now that nobody else changes it and what was interrupted is undone.
            _require(prefix, update=update)
        updated = update and prefixes.is_occupied(prefix)
        asked = {
            "folder": str(site.new),
            "prefix": str(prefix),
            "specs": list(specs),
            "channels": list(channels),
            "update": updated,
            "driver": driver,
        }
        with channel_views.reading(channels):
            done = children.run(
                children.module(
                    "vllm_build.conda.environments.conda_environment", json.dumps(asked)
                )
            )
        if done.returncode:
            raise _failure(done.returncode, done.stderr.strip(), specs, prefix)
        if updated:
            intact.mark_again(site.new, prefix)
        else:
            records = intact.records(site.new)
            intact.mark(site.new, records, edits.states(site.new, records))
        before = set(intact.damages(prefix, ())) if updated else set()
        if damage := next(
            (found for found in intact.damages(site.new, ()) if found not in before), None
        ):
            if cut := _cut_short(site.new):
                raise _exhausted(f"installing {', '.join(specs)} into {prefix}", cut)
            raise PackageTestError(
                f"installing {', '.join(specs)} into {prefix} left a damaged environment: {damage}"
            )
        # Once more: installing takes a while, and somebody may have edited what is replaced now.
        if updated:
            prefixes.require_kept(prefix, site.new)
        elif not force:
            prefixes.require_replaceable(prefix)
        site.commit()
    installed: list[dict[str, str]] = json.loads(done.stdout)
    return installed


def _require(prefix: Path, *, update: bool, contents: bool = True) -> None:
    if update:
        prefixes.require_environment(prefix)
    else:
        prefixes.require_replaceable(prefix, contents=contents)


#: What the child's exit status says.
_KINDS = {
    kind.exit_code: kind
    for kind in (ConfigurationError, ToolchainError, FetchError, IntegrityError, ResourceError)
}


def _failure(status: int, said: str, specs: Sequence[str], prefix: Path) -> VllmBuildError:
    """The child's error."""
    what = f"installing {', '.join(specs)} into {prefix}"
    try:
        error = json.loads(said.splitlines()[-1])
        return _KINDS[status](error["message"], expected=error["expected"], remedy=error["remedy"])
    except (IndexError, ValueError, KeyError, TypeError):
        pass
    if line := failures.exhausted(said):
        return _exhausted(what, line)
    if status == -signal.SIGKILL:
        return _exhausted(
            what, "the process was killed, as the kernel does when memory is exhausted"
        )
    return PackageTestError(f"{what} failed (exit status {status})\n{said}")


def _exhausted(what: str, said: str) -> ResourceError:
    return ResourceError(
        f"{what} failed: {said}",
        expected="disk, memory and file handles for an installation",
        remedy="free some, or raise the limits of this process (ulimit -a)",
    )


def _cut_short(folder: Path) -> str | None:
    """Where files may have a certain size at most, a file of that size: rattler reports no record that it wrote in part."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    found = next(
        (
            p
            for p in folder.rglob("*")
            if p.is_file() and not p.is_symlink() and p.stat().st_size >= limit
        ),
        None,
    )
    return f"{found} has the {limit} bytes that a file may have" if found else None


def _link(records: Sequence[RepoDataRecord], folder: Path, prefix: Path) -> None:
    """Install ``records`` into ``folder``, with the paths of ``prefix``.

    Raises:
        FetchError, IntegrityError: a package is missing, or is not the one that its channel lists.
        PackageTestError: a package cannot be installed. ResourceError: the disk is full.
    """
    # A package that stays may be in no channel any more.
    there = (
        {(r.name.normalized, str(r.version), r.build, r.sha256) for r in _installed(folder)}
        if folder.is_dir()
        else set()
    )
    new = [
        r for r in records if (r.name.normalized, str(r.version), r.build, r.sha256) not in there
    ]
    listed = [index_check.of_record(r.url, r.sha256, r.size) for r in new]
    states = index_check.require(package for package in listed if package is not None)
    # This hashes every extracted file: what was edited in the cache is extracted again, and not
    # installed.
    removal.claim_cache()
    cache = PackageCache.new_layered(
        [paths.extracted_packages()], validation_mode=ValidationMode.full()
    )

    async def run() -> None:
        await install(
            list(records),
            folder,
            client=Client(),
            show_progress=False,
            execute_link_scripts=False,
            alternative_target_prefix=prefix,
            package_cache=cache,
            config=Config.from_toml(_COPIES),
        )

    try:
        asyncio.run(run())
    except InstallerError as error:
        if "hash mismatch" in str(error):
            raise IntegrityError(
                f"a package is not the one that its channel lists\n{error}",
                expected="the sha256 that the channel's index says",
                remedy="try again later: the channel may be in the middle of an update",
            ) from error
        if said := failures.exhausted(str(error)) or _cut_short(folder):
            raise _exhausted(
                f"installing into {prefix} with the cache {paths.cache_root()}", said
            ) from error
        raise PackageTestError(
            f"the packages cannot be installed into {prefix}\n{error}"
        ) from error
    index_check.require_unchanged(states)


def _child(arguments: dict[str, Any], environ: Mapping[str, str]) -> int:
    """Solve and install; writes the packages as JSON to stdout, or its error as JSON to stderr.

    ``environ`` tells which variable chose a path that cannot be used.
    """
    try:
        folder, prefix = Path(arguments["folder"]), Path(arguments["prefix"])
        records = solve_specs(
            arguments["specs"],
            arguments["channels"],
            prefix if arguments["update"] else None,
            arguments["driver"],
        )
        if arguments["update"]:
            # A real copy: some files are written in place, and links would change the environment
            # that is in use.
            shutil.copytree(prefix, folder, symlinks=True)
        _link(records, folder, prefix)
    except (VllmBuildError, OSError, MemoryError) as raised:
        error = failures.of_exception(raised, {}, environ)
        if not isinstance(error, PackageTestError):
            sys.stderr.write(
                json.dumps(
                    {"message": error.message, "expected": error.expected, "remedy": error.remedy}
                )
            )
        else:
            sys.stderr.write(error.message)
        return error.exit_code
    facts = [
        {
            "name": r.name.normalized,
            "version": str(r.version),
            "build": str(r.build),
            "channel": str(r.channel),
        }
        for r in records
    ]
    sys.stdout.write(json.dumps(facts))
    return 0


def environ_of(prefix: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program in ``prefix``: its own PATH, and nothing of the caller's, ``inherited``, but where to write."""
    kept = {
        key: inherited[key]
        for key in ("TMPDIR", "LANG", "LC_ALL", "CONDA_OVERRIDE_CUDA")
        if key in inherited
    }
    return {
        **kept,
        "PATH": f"{prefix}/bin:/usr/bin:/bin",
        "CONDA_PREFIX": str(prefix),
        "HOME": str(prefix),
        "PYTHONNOUSERSITE": "1",
    }


def run_in(
    prefix: Path,
    command: Sequence[str],
    *,
    cwd: Path,
    inherited: Mapping[str, str],
    extra: Mapping[str, str] | None = None,
) -> str:
    """Run a program of the environment; returns what it printed.

    Args:
        prefix: the environment.
        command: a program in its ``bin``, and arguments.
        cwd: where it runs.
        inherited: the caller's variables, of which :func:`environ_of` takes some.
        extra: more variables.

    Raises:
        PackageTestError: it failed; the message ends with its output.
    """
    env = {**environ_of(prefix, inherited), **(extra or {})}
    done = children.run(
        [str(prefix / "bin" / command[0]), *command[1:]], cwd=cwd, env=env, merged=True
    )
    if done.returncode:
        raise PackageTestError(
            f"{' '.join(command)} failed in {prefix} (exit status {done.returncode})\n"
            f"{done.stdout.rstrip()}"
        )
    return done.stdout


if __name__ == "__main__":
    status = _child(json.loads(sys.argv[1]), snapshot())
    sys.stdout.flush()
    sys.stderr.flush()
    # Past the interpreter's own end, where the crash would be.
    os._exit(status)
