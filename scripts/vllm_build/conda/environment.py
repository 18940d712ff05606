# SPDX-License-Identifier: Apache-2.0
"""Solves and installs conda environments with py-rattler."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from rattler import Client, MatchSpec, VirtualPackage, VirtualPackageOverrides, install, solve
from rattler.exceptions import SolverError

from vllm_build import paths
from vllm_build.errors import PackageTestError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rattler import RepoDataRecord


def solve_specs(specs: Sequence[str], channels: Sequence[str]) -> list[RepoDataRecord]:
    """The records that satisfy ``specs`` on this machine, from ``channels`` alone, earlier channels first.

    Raises:
        ToolchainError: no combination of packages satisfies them; the message is the solver's explanation.
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
    except SolverError as error:
        raise ToolchainError(
            f"no environment with {', '.join(specs)} can be solved from {', '.join(channels)}\n{error}",
            expected="packages that fit each other and this machine",
            remedy="build what is missing: vllm-build toolchain, vllm-build package",
        ) from error


def create(prefix: Path, specs: Sequence[str], channels: Sequence[str]) -> list[RepoDataRecord]:
    """Solve ``specs`` and install them into ``prefix``, replacing what is there; the new prefix appears whole or not at all.

    Raises:
        ToolchainError: the specs cannot be solved.
    """
    records = solve_specs(specs, channels)
    if prefix.exists():
        shutil.rmtree(prefix)
    prefix.parent.mkdir(parents=True, exist_ok=True)

    async def run() -> None:
        await install(
            records,
            str(prefix),
            cache_dir=str(paths.rattler_cache() / "pkgs"),
            client=Client(),
            show_progress=False,
            execute_link_scripts=False,
        )

    try:
        asyncio.run(run())
    except BaseException:
        # Half an environment would look like one to the next caller.
        shutil.rmtree(prefix, ignore_errors=True)
        raise
    return records


def environ_of(prefix: Path) -> dict[str, str]:
    """The environment of a program in ``prefix``: its own PATH and nothing of the caller's but where to write."""
    kept = {key: os.environ[key] for key in ("TMPDIR", "LANG", "LC_ALL", "CONDA_OVERRIDE_CUDA") if key in os.environ}
    return {**kept, "PATH": f"{prefix}/bin:/usr/bin:/bin", "CONDA_PREFIX": str(prefix), "HOME": str(prefix), "PYTHONNOUSERSITE": "1"}


def run_in(prefix: Path, command: Sequence[str], *, cwd: Path, extra: Mapping[str, str] | None = None) -> str:
    """Run a program of the environment; returns what it printed.

    Raises:
        PackageTestError: it failed; the message ends with its output.
    """
    done = subprocess.run(
        [str(prefix / "bin" / command[0]), *command[1:]],
        cwd=cwd,
        env={**environ_of(prefix), **(extra or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PackageTestError(f"{' '.join(command)} failed in {prefix} (exit status {done.returncode})\n{done.stdout.rstrip()}")
    return done.stdout
