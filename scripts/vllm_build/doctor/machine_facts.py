# SPDX-License-Identifier: Apache-2.0
"""Facts about CPUs, memory and disks."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from vllm_build.doctor.fact import Fact, contradiction, missing, of_error
from vllm_build.kernels.kernel_records import MEMORY_CLASSES
from vllm_build.native import job_count, machine_limits
from vllm_build.native.machine_limits import GIB
from vllm_build.util import files, paths
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vllm_build.settings.build_settings import Settings
    from vllm_build.target.device import Target

#: Disk space for a first build of the toolchain channel and one variant: downloads, channel,
#: extracted packages and work folders.
NEEDED_BYTES = 12 * GIB


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def _disk(what: str, folder: Path, variable: str | None) -> Fact:
    place = _existing(folder)
    elsewhere = f"or choose another folder with {variable or '--output'}"
    if not files.may_write(place):
        return missing(what, f"{folder} cannot be written", f"make it writable, {elsewhere}")
    free = shutil.disk_usage(place).free
    found = f"{folder}, {free / GIB:.1f} GiB free"
    if free < NEEDED_BYTES:
        return missing(
            what,
            found,
            f"a first build takes about {NEEDED_BYTES // GIB} GiB; free some space, {elsewhere}",
        )
    return Fact(what, found)


def _cache() -> Fact:
    try:
        return _disk("cache", paths.cache_root(), "VLLM_BUILD_CACHE")
    except ConfigurationError as error:
        return of_error("cache", error)


def _work(asked: Settings, target: Target) -> Iterator[Fact]:
    wanted, variable = asked.jobs
    chosen = job_count.decide(
        wanted,
        asked.nvcc_threads,
        device=target.name,
        toolkit_version=target.release,
        source=variable,
    )
    yield Fact("jobs", f"{chosen.jobs} ({'; '.join(chosen.why)})")
    fitting = job_count.decide(
        None, asked.nvcc_threads, device=target.name, toolkit_version=target.release
    )
    if wanted is not None and chosen.jobs > fitting.jobs:
        tight = min((limit.amount for limit in machine_limits.memory_limits()), default=None)
        if tight is not None and tight < chosen.jobs * MEMORY_CLASSES["ordinary"]:
            yield contradiction(
                "memory",
                f"{variable}={wanted}, but memory is enough for only {fitting.jobs} jobs "
                f"({'; '.join(fitting.why)})",
                f"unset or reduce {variable}; otherwise the build may be killed",
            )


def examine(root: Path, asked: Settings, target: Target) -> list[Fact]:
    """Facts about the machine's resources, and whether they are enough for a build."""
    return [
        *_work(asked, target),
        _cache(),
        _disk("build folders", asked.build_root or root / "build", "VLLM_BUILD_ROOT"),
        _disk("output", root / "output", None),
    ]
