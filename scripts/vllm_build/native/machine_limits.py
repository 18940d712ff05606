# SPDX-License-Identifier: Apache-2.0
"""CPUs and memory that this process may use.

Affinity and cgroup quotas limit CPUs. Free memory, cgroup limits and resource limits limit memory.

cgroup v1 and v2 are read where the process's own mount table shows them, which also works in a
container. Every group from the process's own up to the root counts, because each may have a tighter
limit. Source: the Linux kernel's admin-guide, cgroup-v1 and cgroup-v2.
"""

from __future__ import annotations

import os
import re
import resource
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

GIB = 1 << 30
#: cgroup v1 spells "no limit" as the largest multiple of the page size. No machine has that much
#: memory.
_UNLIMITED = 1 << 60
PROC = Path("/proc")
#: A line of mountinfo: id, parent, device, root, folder, options, optional fields, "-", type,
#: source, options of the file system.
_MOUNT = re.compile(
    r"[0-9]+ [0-9]+ \S+ (?P<root>\S+) (?P<folder>\S+) .*?- cgroup(?P<version>2?) \S+ "
    r"(?P<options>\S+)"
)


@dataclass(frozen=True)
class Limit:
    """An amount (CPUs or bytes) and its origin in words."""

    amount: int
    source: str


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _memberships(proc: Path) -> dict[str, str]:
    """Controller -> this process's group in its hierarchy; the empty name is cgroup v2."""
    found = {}
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, separator, group = rest.partition(":")
        if separator:
            found.update(dict.fromkeys(controllers.split(","), group))
    return found


def _mounts(proc: Path) -> dict[str, tuple[str, Path]]:
    """Controller -> the group at its mount point, and that point; the empty name is cgroup v2."""
    found: dict[str, tuple[str, Path]] = {}
    for line in _read(proc / "self" / "mountinfo").splitlines():
        match = _MOUNT.fullmatch(line)
        if match:
            controllers = match["options"].split(",") if match["version"] == "" else [""]
            found.update(dict.fromkeys(controllers, (match["root"], Path(match["folder"]))))
    return found


def _groups(proc: Path, controller: str) -> list[Path]:
    """Folders of this process's group and of the mounted groups above it, innermost first."""
    group, mount = _memberships(proc).get(controller), _mounts(proc).get(controller)
    if group is None or mount is None:
        return []
    shown, folder = mount
    inside = PurePosixPath(group)
    # In a container the root of the mount is the container's group, while the membership may be the
    # host's path.
    relative = inside.relative_to(shown) if inside.is_relative_to(shown) else PurePosixPath()
    if ".." in relative.parts or not (folder / relative).is_dir():
        relative = PurePosixPath()
    return [folder / relative, *[folder / parent for parent in relative.parents if relative.parts]]


def cpu_limits(proc: Path = PROC) -> list[Limit]:
    """Every limit on the CPUs of this process; a quota below one CPU counts as one."""
    affinity = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    found = [Limit(affinity, f"affinity, {affinity}")]
    quotas = [_read(folder / "cpu.max").partition(" ") for folder in _groups(proc, "")]
    pairs = [(quota, period) for quota, _, period in quotas]
    pairs += [
        (_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))
        for folder in _groups(proc, "cpu")
    ]
    for quota, period in pairs:
        spent, of = _number(quota), _number(period)
        if spent and of:
            found.append(Limit(max(1, spent // of), f"cgroup quota, {spent / of:g}"))
    return found


def _reclaimable(folder: Path, prefix: str) -> int:
    """Bytes of file cache in a group's usage that the kernel can reclaim immediately."""
    statistics = dict(
        line.split(" ", 1) for line in _read(folder / "memory.stat").splitlines() if " " in line
    )
    inactive, active = (
        _number(statistics.get(f"{prefix}{name}_file", "")) or 0 for name in ("inactive", "active")
    )
    return inactive + active // 2


def memory_limits(proc: Path = PROC) -> list[Limit]:
    """Every limit on the bytes that this process and its children may still allocate."""
    found = []
    for line in _read(proc / "meminfo").splitlines():
        name, _, value = line.partition(":")
        kib = _number(value.strip().partition(" ")[0])
        if name == "MemAvailable" and kib is not None:
            found.append(Limit(kib * 1024, f"{kib / (1 << 20):.2f} GiB available"))
    for controller, limit_file, used_file, prefix in (
        ("", "memory.max", "memory.current", ""),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        for folder in _groups(proc, controller):
            limit = _number(_read(folder / limit_file))
            if limit is None or limit >= _UNLIMITED:
                continue
            used = max(0, (_number(_read(folder / used_file)) or 0) - _reclaimable(folder, prefix))
            free = max(0, limit - used)
            found.append(
                Limit(
                    free, f"cgroup limit of {limit / GIB:.1f} GiB, {free / GIB:.2f} GiB of it free"
                )
            )
    # The kernel applies these to each process, but batch systems set them for the job as a whole.
    for name in ("RLIMIT_AS", "RLIMIT_DATA"):
        soft, _ = resource.getrlimit(getattr(resource, name))
        if soft != resource.RLIM_INFINITY:
            found.append(Limit(soft, f"{name} of {soft / GIB:.1f} GiB"))
    return found
