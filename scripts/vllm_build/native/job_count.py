# SPDX-License-Identifier: Apache-2.0
"""Decides how many compilers run at once, and with how many threads (build contract, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.version import Version

from vllm_build.kernels.kernel_records import MEMORY_CLASSES
from vllm_build.native import machine_limits
from vllm_build.native.machine_limits import GIB, Limit
from vllm_build.util.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllm_build.kernels.build_plan import Plan
    from vllm_build.settings.build_settings import Settings

__all__ = ["GIB", "Jobs", "decide"]

#: The first nvcc with `--threads`, which compiles for several architectures in parallel.
NVCC_THREADS_SINCE = Version("11.2")


@dataclass(frozen=True)
class Jobs:
    """How a build is spread over the machine.

    Attributes:
        jobs: compilers at once, heavy ones included.
        nvcc_threads: threads of each nvcc; None if the compiler has no such option.
        heavy_jobs: units of the memory classes above ``ordinary`` at once, which is the depth of
            their Ninja pool.
        why: the reasons, in words.
        lacking: that not even one heavy unit fits into the memory, in words; None if one does, or
            if the user has chosen the number of jobs.
    """

    jobs: int
    nvcc_threads: int | None
    heavy_jobs: int
    why: tuple[str, ...]
    lacking: str | None = None

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Variables for the build's process.

        They pass the number of threads to nvcc without changing any command line.
        """
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
    """Usable CPUs and bytes, given or measured, and what limits them; None if memory is unknown."""
    said_cpus, said_memory = f"CPUs: given, {cpus}", "memory: unknown"
    if cpus is None:
        cpus, said_cpus = _tightest(machine_limits.cpu_limits(), "CPUs")
    if memory is not None:
        said_memory = f"memory: given, {memory / GIB:.2f} GiB"
    elif known := machine_limits.memory_limits():
        memory, said_memory = _tightest(known, "memory")
    return cpus, memory, [said_cpus, said_memory]


def _fit(
    cpus: int, memory: int, heavy_units: int, heavy: int, *, pools: bool
) -> tuple[int, int, str]:
    """Number of jobs, number of heavy jobs, and the reason.

    All jobs together stay within ``memory`` at their peaks, but there is always at least one.
    """
    ordinary = MEMORY_CLASSES["ordinary"]
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
                f"units of {heavy / GIB:.1f} GiB that fit: {heavy_jobs}; without job pools any "
                "unit may be one of them"
            ),
        )
    heavy_jobs = min(heavy_jobs, heavy_units)
    remaining = max(0, memory - heavy_jobs * heavy) // ordinary
    jobs = max(1, min(cpus, heavy_jobs + remaining))
    return (
        jobs,
        heavy_jobs,
        (
            f"units of {heavy / GIB:.1f} GiB that fit: {heavy_jobs}, and units of "
            f"{ordinary / GIB:.1f} GiB in addition: {remaining}"
        ),
    )


def decide(
    max_jobs: int | None,
    nvcc_threads: int | None,
    *,
    device: str,
    toolkit_version: Version | None = None,
    heavy_units: int = 0,
    heavy: int = MEMORY_CLASSES["heavy"],
    pools: bool = True,
    cpus: int | None = None,
    memory: int | None = None,
    source: str = "MAX_JOBS",
) -> Jobs:
    """Choose the number of jobs.

    ``max_jobs`` is the user's choice and overrides the limits of CPUs and memory. The pool of heavy
    units still fits into memory.

    Without ``max_jobs``, units that run at the same time never need more than the memory, measured
    by their classes, unless a single unit does.

    Args:
        max_jobs: the user's choice.
        nvcc_threads: ``NVCC_THREADS``.
        device: what the build is for.
        toolkit_version: release of the device's toolkit; None means unknown. Every supported CUDA
            has threads.
        heavy_units: number of heavy units in the plan (``len(plan.heavy_sources)``).
        heavy: bytes that one of them may take (``plan.heaviest_bytes``).
        pools: whether the build program has job pools (Ninja); without them any job may be a heavy
            one.
        cpus: usable CPUs; None asks the machine.
        memory: usable bytes; None asks the machine.
        source: the variable that ``max_jobs`` comes from, for messages.
    """
    cpus, memory, why = _machine(cpus, memory)
    jobs, heavy_jobs, lacking = cpus, cpus, None
    if memory is not None:
        jobs, heavy_jobs, said = _fit(cpus, memory, heavy_units, heavy, pools=pools)
        why.append(said)
        if memory < (heavy if heavy_units else MEMORY_CLASSES["ordinary"]):
            why.append("one unit may need more than the memory: the compiler may run out of it")
        if heavy_units and memory < heavy and max_jobs is None:
            lacking = (
                f"{heavy_units} unit{'' if heavy_units == 1 else 's'} of this build may take "
                f"{heavy / GIB:.0f} GiB of memory each, and this process may use "
                f"{memory / GIB:.1f} GiB"
            )
    if max_jobs is not None:
        jobs = max_jobs
        why.append(f"{source}={max_jobs}")

    threads = None
    if device == "cuda" and (toolkit_version is None or toolkit_version >= NVCC_THREADS_SINCE):
        threads = nvcc_threads or 1
        jobs, heavy_jobs = max(1, jobs // threads), max(1, heavy_jobs // threads)
        if threads > 1:
            why.append(f"NVCC_THREADS={threads}: each job counts as {threads}")
    return Jobs(jobs, threads, min(jobs, heavy_jobs), tuple(why), lacking)


def of_plan(
    plan: Plan, settings: Settings, toolkit_version: Version | None, *, pools: bool = True
) -> Jobs:
    """Choose the number of jobs for a plan; the arguments are those of :func:`decide`."""
    wanted, variable = settings.jobs
    return decide(
        wanted,
        settings.nvcc_threads,
        device=plan.device,
        toolkit_version=toolkit_version,
        heavy_units=len(plan.heavy_sources),
        heavy=plan.heaviest_bytes,
        pools=pools,
        source=variable,
    )


def require_memory(jobs: Jobs, plan: Plan) -> None:
    """Refuse a build whose largest units do not fit into the memory, before it starts.

    Raises:
        ResourceError: the memory is too small.
    """
    if jobs.lacking is None:
        return
    heaviest = sorted(
        kernel.name
        for extension in plan.extensions
        for kernel in extension.kernels
        if MEMORY_CLASSES[kernel.memory] == plan.heaviest_bytes
    )
    raise ResourceError(
        f"{jobs.lacking}: {', '.join(heaviest)}",
        expected="memory for one of them",
        remedy="choose fewer kernels with TORCH_CUDA_ARCH_LIST, VLLM_KERNEL_SET, VLLM_FA_SET or "
        "VLLM_COMPONENTS, or set MAX_JOBS=1 to try it with swap space",
    )
