# SPDX-License-Identifier: Apache-2.0
"""Solves conda environments with py-rattler."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rattler import (
    MatchSpec,
    Override,
    PrefixRecord,
    VirtualPackage,
    VirtualPackageOverrides,
    solve,
)
from rattler.exceptions import GatewayError, SolverError

from vllm_build.conda.environments import install_limits
from vllm_build.packing import channel_index, index_check
from vllm_build.util import failures
from vllm_build.util.errors import ToolchainError, VllmBuildError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from packaging.version import Version
    from rattler import RepoDataRecord


def solve_specs(
    specs: Sequence[str],
    channels: Sequence[str],
    prefix: Path | None = None,
    driver: str | None = None,
    constraints: Sequence[str] = (),
) -> list[RepoDataRecord]:
    """Find the records from ``channels`` that satisfy ``specs`` on this machine.

    Args:
        specs: the requested packages.
        channels: addresses, the most important first.
        prefix: an environment to update. Its packages stay, in the same builds where possible, even
            if no channel has them. The pins in ``conda-meta/pinned`` apply.
        driver: the release of CUDA to solve for, from :func:`assumed_driver`. None: the machine's,
            or that of ``CONDA_OVERRIDE_CUDA``.
        constraints: specs for packages that are installed only if another package requires them.

    Raises:
        ToolchainError: no combination of packages satisfies the specs, or a channel cannot be read;
            the message is the solver's explanation.
        IntegrityError: the index of a channel is damaged. ResourceError: a resource of the machine
            is exhausted.
    """
    index_check.require_indexes(channels)

    async def run() -> list[RepoDataRecord]:
        # The solver gets the machine's properties, such as __glibc and __cuda, from its caller.
        overrides = VirtualPackageOverrides.from_env()
        if driver is not None:
            overrides.cuda = Override.string(driver)
        virtual = VirtualPackage.detect(overrides)
        present = installed(prefix) if prefix else []
        wanted = [MatchSpec(spec) for spec in specs]
        named = {spec.name.normalized for spec in wanted if spec.name is not None}
        wanted += [
            MatchSpec(record.name.normalized)
            for record in present
            if record.name.normalized not in named
        ]
        found: list[RepoDataRecord] = await solve(
            sources=list(channels),
            specs=wanted,
            virtual_packages=virtual,
            locked_packages=present,
            constraints=[*constraints, *(_pinned(prefix) if prefix else ())],
        )
        return found

    try:
        return asyncio.run(run())
    except (SolverError, GatewayError) as error:
        raise _unsolved(specs, channels, str(error)) from error


def installed(prefix: Path) -> list[PrefixRecord]:
    """The records of the packages in an environment."""
    return [PrefixRecord.from_path(path) for path in sorted((prefix / "conda-meta").glob("*.json"))]


def _pinned(prefix: Path) -> list[str]:
    pinned = prefix / "conda-meta" / "pinned"
    lines = pinned.read_text(encoding="utf-8").splitlines() if pinned.is_file() else []
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def cuda_driver() -> str | None:
    """The CUDA release of this machine's driver or ``CONDA_OVERRIDE_CUDA``; None without one."""
    virtual = [
        package.into_generic()
        for package in VirtualPackage.detect(VirtualPackageOverrides.from_env())
    ]
    return next(
        (str(package.version) for package in virtual if package.name.normalized == "__cuda"), None
    )


def assumed_driver(toolkit: Version | None) -> str | None:
    """The CUDA release to solve for if a variant needs a CUDA ``toolkit`` and there is no driver.

    Packages for GPUs are built, installed and loaded on machines without a GPU. Solvers refuse to
    install them there without this override. None: no override.
    """
    return None if toolkit is None or cuda_driver() is not None else str(toolkit)


def _unsolved(specs: Sequence[str], channels: Sequence[str], why: str) -> VllmBuildError:
    if damaged := channel_index.of_rattler(why, channels):
        return damaged
    if reason := failures.exhausted(why):
        return install_limits.exhausted(f"solving {', '.join(specs)}", reason)
    return ToolchainError(
        f"no environment with {', '.join(specs)} can be solved from {', '.join(channels)}\n{why}",
        expected="packages that fit each other and this machine",
        remedy="build what is missing: vllm-build toolchain, vllm-build package",
    )
