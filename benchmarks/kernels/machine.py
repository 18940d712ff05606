# SPDX-License-Identifier: Apache-2.0
"""The limits of the machine, measured by ``limits.cc``, and shortest possible times."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernels.peers import Runner

SOURCE = Path(__file__).resolve().with_name("limits.cc")
#: The flags of /proc/cpuinfo that decide which kernels run.
FEATURES = (
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "amx_fp16",
)


@dataclass
class Limits:
    """The best measurements of a run: bytes and operations per second of all threads together.

    Attributes:
        read: reading data far larger than the caches, from one place or from several at once,
            whichever is faster.
        copy: bytes that a copy with ordinary stores reads and writes.
        streaming_copy: the same with stores that bypass the caches.
        flops: float32 operations; a multiply-add counts as two.
        bf16: operations of products of bfloat16 that are added in float32.
        int8: operations of products of int8 that are added in int32.
    """

    read: float = 0.0
    copy: float = 0.0
    streaming_copy: float = 0.0
    flops: float = 0.0
    bf16: float = 0.0
    int8: float = 0.0

    def shortest(
        self, reads: int, writes: int, flops: float, arithmetic: str = ""
    ) -> tuple[float, str]:
        """The shortest possible time in nanoseconds, and the unit of the limiting rate.

        ``arithmetic`` is the dtype of the multiplied numbers as torch spells it, without prefix.

        The time is that of moving the bytes or of computing, whichever is longer. Equal amounts
        that are read and written count as copied, the rest as read. Moving never takes less time
        than reading alone.
        """
        copied = 2 * min(reads, writes)
        mixed = copied / max(self.copy, self.streaming_copy) + (reads + writes - copied) / max(
            self.read, self.streaming_copy
        )
        memory = max(reads / self.read, mixed)
        rates = {"bfloat16": self.bf16, "int8": self.int8}
        computing = flops / (rates.get(arithmetic) or self.flops)
        return max(memory, computing) * 1e9, "GFLOP/s" if computing > memory else "GB/s"


class Machine:
    """Measures the limits and keeps the best: other work can only lower a measurement."""

    def __init__(self, runner: Runner, threads: int, flags: Sequence[str] = ()) -> None:
        self._runner, self._threads = runner, threads
        self._flags = shlex.join(("-O3", "-march=native", *flags, "-pthread"))
        self._folder = tempfile.TemporaryDirectory(prefix="vllm-limits-")
        self._program = Path(self._folder.name) / "limits"
        self.limits = Limits()
        self.problem = self._compile()

    def _compile(self) -> str:
        script = f'exec "${{CXX:-c++}}" {self._flags} -o "{self._program}" "{SOURCE}"'
        done = self._run("bash", "-c", script)
        return (
            ""
            if done.returncode == 0
            else f"cannot compile {SOURCE.name} with the C++ compiler: {done.stderr.strip()[-200:]}"
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
        for name in ("read", "copy", "streaming_copy", "flops", "bf16", "int8"):
            setattr(self.limits, name, max(getattr(self.limits, name), found[name]))


def description(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """Facts about the machine for a report."""
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    flags = set(found.get("flags", "").split())
    return {
        "cpu": found.get("model name", "unknown CPU"),
        "features": [feature for feature in FEATURES if feature in flags],
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
