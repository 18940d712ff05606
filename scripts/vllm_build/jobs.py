# SPDX-License-Identifier: Apache-2.0
"""How many compilers may run at once on this machine: what the CPUs allow, and what memory allows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30


@dataclass(frozen=True)
class Jobs:
    """The number of jobs and the reasons for it, in words."""

    count: int
    why: tuple[str, ...]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _cgroup_folders(sys_root: Path, proc_root: Path) -> list[Path]:
    """This process's cgroup v2 folder and all above it: each may hold a tighter limit."""
    mount = sys_root / "fs" / "cgroup"
    for line in (_read(proc_root / "self" / "cgroup") or "").splitlines():
        if line.startswith("0::"):
            folder = mount / line[3:].lstrip("/")
            return [folder, *[p for p in folder.parents if p == mount or mount in p.parents]]
    return [mount]


def cpu_limit(sys_root: Path = Path("/sys"), proc_root: Path = Path("/proc")) -> int:
    """CPUs this process may use: the affinity mask, cut to the cgroup's quota."""
    limit = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _cgroup_folders(sys_root, proc_root):
        quota, _, period = (_read(folder / "cpu.max") or "").partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            limit = min(limit, max(1, int(quota) // int(period)))
    return limit


def memory_limit(sys_root: Path = Path("/sys"), proc_root: Path = Path("/proc")) -> int | None:
    """Bytes this process may still use: available memory, cut to the cgroup's limit; None when neither is known."""
    meminfo = (_read(proc_root / "meminfo") or "").splitlines()
    limits = [int(line.split()[1]) * 1024 for line in meminfo if line.startswith("MemAvailable:")]
    for folder in _cgroup_folders(sys_root, proc_root):
        text = _read(folder / "memory.max")
        if text and text.isdigit():
            limits.append(max(0, int(text) - int(_read(folder / "memory.current") or 0)))
    return min(limits, default=None)


def decide(max_jobs: int | None, *, unit_bytes: int, cpus: int | None = None, memory: int | None = None) -> Jobs:
    """Choose the number of jobs; ``max_jobs`` (the user's word) wins over everything.

    Args:
        max_jobs: ``MAX_JOBS``.
        unit_bytes: what the largest unit of the plan may take to compile.
        cpus: usable CPUs; None asks the machine.
        memory: usable bytes; None asks the machine.
    """
    if max_jobs is not None:
        return Jobs(max_jobs, (f"MAX_JOBS={max_jobs}",))
    cpus = cpu_limit() if cpus is None else cpus
    memory = memory_limit() if memory is None else memory
    why = [f"{cpus} usable CPUs"]
    count = cpus
    if memory is not None:
        fit = max(1, memory // unit_bytes)
        why.append(f"{memory / GIB:.1f} GiB of memory fit {fit} units of {unit_bytes / GIB:.1f} GiB")
        count = min(count, fit)
    return Jobs(count, tuple(why))
