# SPDX-License-Identifier: Apache-2.0
"""Facts about the machine, read from where the operating system publishes them.

Needs neither torch nor a package.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")


def _read(path: Path) -> str:
    """The text of a file of the kernel's, empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpuinfo(*keys: str) -> str:
    """The value of the first of ``keys`` that /proc/cpuinfo has, for the first processor; empty when it has none."""
    fields: dict[str, str] = {}
    for line in _read(_PROC / "cpuinfo").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    return next((fields[key] for key in keys if fields.get(key)), "")


def cpu_model() -> str:
    """The processor's model name; its architecture where the kernel gives no name (most Arm machines)."""
    return _cpuinfo("model name", "Model", "cpu") or platform.machine()


def cpu_flags() -> frozenset[str]:
    """Instruction-set flags (x86: ``flags``, Arm: ``Features``); empty where the kernel lists none."""
    return frozenset(_cpuinfo("flags", "Features", "isa").split())


def usable_cpus() -> int:
    """Processors that this process may run on, by its affinity mask."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroup_limits() -> list[int]:
    """Memory limits of the control groups this process is in, in bytes: its own and those above, versions 2 and 1."""
    limits = []
    for line in _read(_PROC / "self" / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, group = rest.partition(":")
        if not colon:
            continue
        if not controllers:  # version 2: one hierarchy, which names no controllers
            base, file = _CGROUP, "memory.max"
        elif "memory" in controllers.split(","):
            base, file = _CGROUP / "memory", "memory.limit_in_bytes"
        else:
            continue
        leaf = base / group.lstrip("/")
        for folder in (leaf, *leaf.parents):
            if folder != base and base not in folder.parents:
                break
            if (text := _read(folder / file).strip()).isdecimal() and text.isascii():
                limits.append(int(text))
    return limits


def memory_bytes() -> int:
    """Memory this process may use: the machine's, or a control group's limit where that is lower, in bytes."""
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_cgroup_limits()])
