# SPDX-License-Identifier: Apache-2.0
"""What the machine can do at most, measured by ``limits.cc``, and how long a case must take at least by that."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernels.peers import Runner

SOURCE = Path(__file__).resolve().with_name("limits.cc")


@dataclass
class Limits:
    """The best of all measurements of a run; bytes and floating-point operations a second, all threads together.

    Attributes:
        read: reading far beyond the caches, from one place or from several at once, whichever is
            faster.
        copy: bytes read and written by a copy with ordinary stores.
        streaming_copy: the same with stores past the caches.
        flops: multiply-adds in float32 count two.
    """

    read: float = 0.0
    copy: float = 0.0
    streaming_copy: float = 0.0
    flops: float = 0.0

    def shortest(
        self, reads: int, writes: int, flops: float, _arithmetic: str = ""
    ) -> tuple[float, str]:
        """The nanoseconds that moving the bytes or computing takes at least, whichever is more, and which one it is.

        What is read and written again counts as copied, the rest as read; but reading takes as long
        as it does alone, however little is written.
        """
        copied = 2 * min(reads, writes)
        mixed = copied / max(self.copy, self.streaming_copy) + (reads + writes - copied) / max(
            self.read, self.streaming_copy
        )
        memory = max(reads / self.read, mixed)
        computing = flops / self.flops
        return max(memory, computing) * 1e9, "GFLOP/s" if computing > memory else "GB/s"


class Machine:
    """Measures the limits as often as it is asked to and keeps the best: other work only ever makes them look lower."""

    def __init__(self, runner: Runner, threads: int) -> None:
        self._runner, self._threads = runner, threads
        self._folder = tempfile.TemporaryDirectory(prefix="vllm-limits-")
        self._program = Path(self._folder.name) / "limits"
        self.limits = Limits()
        self.problem = self._compile()

    def _compile(self) -> str:
        script = f'exec "${{CXX:-c++}}" -O3 -march=native -pthread -o "{self._program}" "{SOURCE}"'
        done = self._run("bash", "-c", script)
        return (
            ""
            if done.returncode == 0
            else f"no C++ compiler that compiles {SOURCE.name}: {done.stderr.strip()[-200:]}"
        )

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = self._runner.command(*words)
        return subprocess.run(
            command, env=dict(self._runner.env), capture_output=True, text=True, check=False
        )

    def measure(self) -> None:
        """Measure once more."""
        if self.problem:
            return
        done = self._run(str(self._program), str(self._threads))
        if done.returncode:
            self.problem = f"{SOURCE.name} failed: {done.stderr.strip()[-200:]}"
            return
        found: dict[str, Any] = json.loads(done.stdout)
        for name in ("read", "copy", "streaming_copy", "flops"):
            setattr(self.limits, name, max(getattr(self.limits, name), found[name]))


def description() -> dict[str, Any]:
    """The machine, for a report."""
    text = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    )
    model = next(
        (
            line.partition(":")[2].strip()
            for line in text.splitlines()
            if line.startswith("model name")
        ),
        "unknown CPU",
    )
    return {"cpu": model, "cores": os.cpu_count(), "load": os.getloadavg()[0]}
