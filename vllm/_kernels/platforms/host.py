# SPDX-License-Identifier: Apache-2.0
"""Facts about the machine, as published by the operating system.

This module needs neither torch nor any package.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")


def _read(path: Path) -> str:
    """The text of a file of the kernel; empty if there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpuinfo(*keys: str) -> str:
    """The value of the first of ``keys`` in /proc/cpuinfo, for the first processor.

    Empty if there is none.
    """
    fields: dict[str, str] = {}
    for line in _read(_PROC / "cpuinfo").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    return next((fields[key] for key in keys if fields.get(key)), "")


def cpu_model() -> str:
    """The processor's model name, or its architecture if there is no name (most Arm machines)."""
    return _cpuinfo("model name", "Model", "cpu") or platform.machine()


def cpu_flags() -> frozenset[str]:
    """Instruction-set flags (x86: ``flags``, Arm: ``Features``); empty if the kernel lists none."""
    return frozenset(_cpuinfo("flags", "Features", "isa").split())


def usable_cpus() -> int:
    """Number of processors in this process's affinity mask."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroup_limits() -> list[int]:
    """Memory limits in bytes of this process's control groups and their parents.

    Control groups of versions 2 and 1 are read.
    """
    limits = []
    for line in _read(_PROC / "self" / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, group = rest.partition(":")
        if not colon:
            continue
        if not controllers:  # version 2: one hierarchy, without names of controllers
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
    """Memory that this process may use, in bytes.

    This is the memory of the machine, or the limit of a control group if that is lower.
    """
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_cgroup_limits()])
