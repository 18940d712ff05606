# SPDX-License-Identifier: Apache-2.0
"""Solves and installs conda environments with py-rattler."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

from rattler import Client, MatchSpec, VirtualPackage, VirtualPackageOverrides, install, solve
from rattler.exceptions import GatewayError, SolverError

from vllm_build import children, paths
from vllm_build.errors import PackageTestError, ToolchainError
from vllm_build.toolchain import views

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from packaging.version import Version
    from rattler import RepoDataRecord


def solve_specs(specs: Sequence[str], channels: Sequence[str]) -> list[RepoDataRecord]:
    """The records that satisfy ``specs`` on this machine, from ``channels`` alone, earlier channels first.

    Raises:
        ToolchainError: no combination of packages satisfies them, or a channel cannot be read; the message is the solver's explanation.
    """

    async def run() -> list[RepoDataRecord]:
        # The solver knows nothing of the machine unless told: __glibc, __cuda and the like are passed in.
        virtual = VirtualPackage.detect(VirtualPackageOverrides.from_env())
        found: list[RepoDataRecord] = await solve(
            sources=list(channels), specs=[MatchSpec(spec) for spec in specs], virtual_packages=virtual
        )
        return found

    try:
        return asyncio.run(run())
    except (SolverError, GatewayError) as error:
        raise _unsolved(specs, channels, str(error)) from error


def cuda_driver() -> str | None:
    """The release of CUDA that this machine's driver, or ``CONDA_OVERRIDE_CUDA``, offers; None without one."""
    virtual = [package.into_generic() for package in VirtualPackage.detect(VirtualPackageOverrides.from_env())]
    return next((str(package.version) for package in virtual if package.name.normalized == "__cuda"), None)


@contextlib.contextmanager
def assumed_driver(toolkit: Version | None) -> Iterator[bool]:
    """Where a variant is for a CUDA ``toolkit`` and there is no driver: solve as if there were one that fits. Says whether it is assumed.

    Packages for GPUs are built, installed and loaded on machines without any; solvers refuse them there unless they are told.
    """
    if toolkit is None or cuda_driver() is not None:
        yield False
        return
    name = "CONDA_OVERRIDE_CUDA"
    before = os.environ.get(name)
    os.environ[name] = str(toolkit)
    try:
        yield True
    finally:
        # An empty value says that there is no driver: it is kept as it was.
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _unsolved(specs: Sequence[str], channels: Sequence[str], why: str) -> ToolchainError:
    return ToolchainError(
        f"no environment with {', '.join(specs)} can be solved from {', '.join(channels)}\n{why}",
        expected="packages that fit each other and this machine",
        remedy="build what is missing: vllm-build toolchain, vllm-build package",
    )


def create(prefix: Path, specs: Sequence[str], channels: Sequence[str]) -> list[dict[str, str]]:
    """Solve ``specs`` and install them into ``prefix``, replacing what is there; the new prefix appears whole or not at all.

    The work is done by a child process: py-rattler 0.28 sometimes crashes while an interpreter that has installed something ends.

    Returns name, version, build and channel of every package.

    Raises:
        ToolchainError: the specs cannot be solved.
        PackageTestError: the solved packages could not be installed.
    """
    if prefix.exists():
        shutil.rmtree(prefix)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    arguments = json.dumps({"prefix": str(prefix), "specs": list(specs), "channels": list(channels)})
    try:
        with views.reading(channels):
            done = children.run(children.module("vllm_build.conda.environment", arguments))
    except BaseException:
        # Half an environment would look like one to the next caller.
        shutil.rmtree(prefix, ignore_errors=True)
        raise
    if done.returncode:
        shutil.rmtree(prefix, ignore_errors=True)
        if done.returncode == ToolchainError.exit_code:
            raise _unsolved(specs, channels, done.stderr.strip())
        raise PackageTestError(f"installing {', '.join(specs)} into {prefix} failed (exit status {done.returncode})\n{done.stderr.strip()}")
    records: list[dict[str, str]] = json.loads(done.stdout)
    return records


def _child(arguments: dict[str, Any]) -> int:
    """Solve and install; writes the packages as JSON to stdout, or why they cannot be solved to stderr."""
    try:
        records = solve_specs(arguments["specs"], arguments["channels"])
    except ToolchainError as error:
        sys.stderr.write(str(error.__cause__))
        return error.exit_code

    async def run() -> None:
        cache = paths.rattler_cache() / "pkgs"
        await install(records, arguments["prefix"], cache_dir=str(cache), client=Client(), show_progress=False, execute_link_scripts=False)

    asyncio.run(run())
    facts = [{"name": r.name.normalized, "version": str(r.version), "build": str(r.build), "channel": str(r.channel)} for r in records]
    sys.stdout.write(json.dumps(facts))
    return 0


def environ_of(prefix: Path) -> dict[str, str]:
    """The environment of a program in ``prefix``: its own PATH and nothing of the caller's but where to write."""
    kept = {key: os.environ[key] for key in ("TMPDIR", "LANG", "LC_ALL", "CONDA_OVERRIDE_CUDA") if key in os.environ}
    return {**kept, "PATH": f"{prefix}/bin:/usr/bin:/bin", "CONDA_PREFIX": str(prefix), "HOME": str(prefix), "PYTHONNOUSERSITE": "1"}


def run_in(prefix: Path, command: Sequence[str], *, cwd: Path, extra: Mapping[str, str] | None = None) -> str:
    """Run a program of the environment; returns what it printed.

    Raises:
        PackageTestError: it failed; the message ends with its output.
    """
    done = children.run([str(prefix / "bin" / command[0]), *command[1:]], cwd=cwd, env={**environ_of(prefix), **(extra or {})}, merged=True)
    if done.returncode:
        raise PackageTestError(f"{' '.join(command)} failed in {prefix} (exit status {done.returncode})\n{done.stdout.rstrip()}")
    return done.stdout


if __name__ == "__main__":
    status = _child(json.loads(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    # Past the interpreter's own end, where the crash would be.
    os._exit(status)
