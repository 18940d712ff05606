# SPDX-License-Identifier: Apache-2.0
"""How many compilers may run at once: what CPUs and memory allow, and with how many threads each compiles (contract, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.version import Version

from vllm_build.kernels.kernels_table import MEMORY_CLASSES
from vllm_build.native import machine_limits
from vllm_build.native.machine_limits import GIB, Limit

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["GIB", "Jobs", "decide"]

#: The first nvcc that compiles for several architectures in threads (`--threads`).
NVCC_THREADS_SINCE = Version("11.2")


@dataclass(frozen=True)
class Jobs:
    """How a build is spread over the machine.

    Attributes:
        jobs: compilers at once, heavy ones included.
        nvcc_threads: threads of each nvcc; None where the compiler has no such option.
        heavy_jobs: units of the memory class ``heavy`` at once: the depth of their Ninja pool.
        why: the reasons, in words.
    """

    jobs: int
    nvcc_threads: int | None
    heavy_jobs: int
    why: tuple[str, ...]

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Variables for the build's process: the thread count reaches nvcc without standing in any command line."""
        if self.nvcc_threads is None or self.nvcc_threads == 1:
            return {}
        return {
            "NVCC_APPEND_FLAGS": (
                f"{environ.get('NVCC_APPEND_FLAGS', '')} --threads={self.nvcc_threads}"
            ).strip()
        }


def _tightest(known: list[Limit], what: str) -> tuple[int, str]:
    tightest = min(known, key=lambda limit: limit.amount)
    return tightest.amount, f"{what}: {tightest.source}"


def _machine(cpus: int | None, memory: int | None) -> tuple[int, int | None, list[str]]:
    """Usable CPUs and bytes, the caller's or the machine's, and what bounds them; None where memory is not known."""
    said_cpus, said_memory = f"CPUs: given, {cpus}", "memory: not known"
    if cpus is None:
        cpus, said_cpus = _tightest(machine_limits.cpu_limits(), "CPUs")
    if memory is not None:
        said_memory = f"memory: given, {memory / GIB:.2f} GiB"
    elif known := machine_limits.memory_limits():
        memory, said_memory = _tightest(known, "memory")
    return cpus, memory, [said_cpus, said_memory]


def _fit(cpus: int, memory: int, heavy_units: int, *, pools: bool) -> tuple[int, int, str]:
    """Jobs, heavy ones among them, and why: so many that all of them at their peaks stay within ``memory``; at least one."""
    ordinary, heavy = MEMORY_CLASSES["ordinary"], MEMORY_CLASSES["heavy"]
    heavy_jobs = max(1, min(cpus, memory // heavy))
    if not heavy_units:
        fit = memory // ordinary
        return (
            max(1, min(cpus, fit)),
            heavy_jobs,
            f"units of {ordinary / GIB:.1f} GiB that fit: {fit}",
        )
    if not pools:
        return (
            heavy_jobs,
            heavy_jobs,
            (
                f"units of {heavy / GIB:.1f} GiB that fit: {heavy_jobs}; no job pools tell them "
                "from "
                "others"
            ),
        )
    heavy_jobs = min(heavy_jobs, heavy_units)
    beside = max(0, memory - heavy_jobs * heavy) // ordinary
    jobs = max(1, min(cpus, heavy_jobs + beside))
    return (
        jobs,
        heavy_jobs,
        (
            f"units of {heavy / GIB:.1f} GiB that fit: {heavy_jobs}, and of {ordinary / GIB:.1f} "
            "GiB "
            f"beside them: {beside}"
        ),
    )


def decide(
    max_jobs: int | None,
    nvcc_threads: int | None,
    *,
    device: str,
    toolkit_version: Version | None = None,
    heavy_units: int = 0,
    pools: bool = True,
    cpus: int | None = None,
    memory: int | None = None,
    source: str = "MAX_JOBS",
) -> Jobs:
    """Choose the number of jobs.

    ``max_jobs`` is the user's word and wins over CPUs and memory; the heavy pool still fits memory.

    Without ``max_jobs``, at no time do the units that run together exceed memory by their classes,
    unless a single one does.

    Args:
        max_jobs: what the user chose.
        nvcc_threads: ``NVCC_THREADS``.
        device: what the build is for.
        toolkit_version: of the device's toolkit; None means not known, and every CUDA above the
            floor has threads.
        heavy_units: how many units of the plan are heavy (``len(plan.heavy_sources)``).
        pools: the build program knows job pools (Ninja); without them any job may be a heavy one.
        cpus: usable CPUs; None asks the machine.
        memory: usable bytes; None asks the machine.
        source: the variable that ``max_jobs`` comes from, for messages.
    """
    cpus, memory, why = _machine(cpus, memory)
    jobs, heavy_jobs = cpus, cpus
    if memory is not None:
        jobs, heavy_jobs, said = _fit(cpus, memory, heavy_units, pools=pools)
        why.append(said)
        if memory < MEMORY_CLASSES["heavy" if heavy_units else "ordinary"]:
            why.append("memory is less than one unit may take: the compiler may run out of it")
    if max_jobs is not None:
        jobs = max_jobs
        why.append(f"{source}={max_jobs}")

    threads = None
    if device == "cuda" and (toolkit_version is None or toolkit_version >= NVCC_THREADS_SINCE):
        threads = nvcc_threads or 1
        jobs, heavy_jobs = max(1, jobs // threads), max(1, heavy_jobs // threads)
        if threads > 1:
            why.append(f"NVCC_THREADS={threads}: a job counts {threads}-fold")
    return Jobs(jobs, threads, min(jobs, heavy_jobs), tuple(why))
