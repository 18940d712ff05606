# SPDX-License-Identifier: Apache-2.0
"""Reads from ``/sys`` which CPUs are online, and to which cores and NUMA nodes they belong.

The engine asks the program ``lscpu`` for this, which minimal systems do not have.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

SYSTEM = Path("/sys/devices/system")


class Cpu(NamedTuple):
    """A CPU that is online: its number, the number of its core, and that of its NUMA node."""

    number: int
    core: int
    node: int


def numbers(text: str) -> list[int]:
    """The numbers of a list in the kernel's form, such as ``0-3,8``; empty if it is malformed."""
    found: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.strip().partition("-")
            found.extend(range(int(first), int(last or first) + 1))
    except ValueError:
        return []
    return found


def _read(path: Path) -> list[int]:
    try:
        return numbers(path.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError):
        return []


def cpus(system: Path = SYSTEM) -> list[Cpu]:
    """The CPUs that are online, sorted by number.

    Cores are counted from 0 in the order of their first CPUs. If ``/sys`` does not
    tell, the CPUs that this process may use are online, a CPU is a core, and the node is 0.

    Args:
        system: the folder of the kernel's devices.
    """
    online = _read(system / "cpu" / "online") or sorted(os.sched_getaffinity(0))
    nodes = {
        cpu: int(folder.name.removeprefix("node"))
        for folder in system.glob("node/node[0-9]*")
        for cpu in _read(folder / "cpulist")
    }
    first = {
        cpu: min(_read(system / "cpu" / f"cpu{cpu}" / "topology" / "thread_siblings_list") or [cpu])
        for cpu in online
    }
    cores = {cpu: place for place, cpu in enumerate(sorted(set(first.values())))}
    return [Cpu(cpu, cores[first[cpu]], nodes.get(cpu, 0)) for cpu in sorted(online)]
