# SPDX-License-Identifier: Apache-2.0
"""What a session of processes uses: processor time and memory, from ``/proc``.

An engine is several processes. Each peer of the benchmark is the leader of a session of its own, so
the session contains exactly what the peer has started.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
#: Places in /proc/PID/stat, counted from the state, which follows the name in parentheses.
_SESSION, _TIMES, _BEGIN = 3, slice(11, 15), 19


@dataclass(frozen=True)
class Process:
    """A process of a session.

    Attributes:
        pid: its number.
        cpu: processor seconds of it and of the children that it has waited for.
        begin: seconds between the start of the machine and its own.
    """

    pid: int
    cpu: float
    begin: float


def parse(text: str) -> tuple[int, Process]:
    """The session and the process of a line of ``/proc/PID/stat``.

    The name of a program may contain spaces and parentheses.
    """
    pid, _, rest = text.partition(" ")
    fields = rest.rpartition(")")[2].split()
    cpu = sum(int(field) for field in fields[_TIMES]) / _TICKS
    return int(fields[_SESSION]), Process(int(pid), cpu, int(fields[_BEGIN]) / _TICKS)


def processes(session: int, proc: Path = PROC) -> list[Process]:
    """The processes of ``session``."""
    found = []
    for folder in proc.iterdir():
        if folder.name.isdigit():
            # A process may end at any moment.
            with contextlib.suppress(OSError):
                owner, process = parse((folder / "stat").read_text(errors="replace"))
                if owner == session:
                    found.append(process)
    return found


def cpu(session: int, proc: Path = PROC) -> float:
    """The processor seconds of a session so far."""
    return sum(process.cpu for process in processes(session, proc))


def age(session: int, proc: Path = PROC) -> float:
    """Seconds since the leader of a session started."""
    begin = min(process.begin for process in processes(session, proc))
    return time.clock_gettime(time.CLOCK_BOOTTIME) - begin


def forget_peaks(session: int, proc: Path = PROC) -> None:
    """Let the peaks of memory begin anew, where the kernel allows it."""
    for process in processes(session, proc):
        with contextlib.suppress(OSError):
            (proc / str(process.pid) / "clear_refs").write_text("5")


def peak(session: int, proc: Path = PROC) -> int:
    """The peaks of resident memory of a session's processes in bytes, added.

    Memory that processes share, such as the code of libraries, counts for each of them.
    """
    total = 0
    for process in processes(session, proc):
        with contextlib.suppress(OSError):
            text = (proc / str(process.pid) / "status").read_text(errors="replace")
            if found := re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE):
                total += int(found[1]) * 1024
    return total


def machine(proc: Path = PROC) -> float:
    """Processor seconds of all processes of the machine, and those that its host took away."""
    line = (proc / "stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _waiting, irq, soft, stolen = map(int, line.split()[1:9])
    return (user + nice + system + irq + soft + stolen) / _TICKS
