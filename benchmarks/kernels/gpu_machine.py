# SPDX-License-Identifier: Apache-2.0
"""The limits of the card, and the shortest possible time of a case.

A child process measures the limits in the same run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernels.peers import Peer


@dataclass
class GpuLimits:
    """The best measurements of a run.

    Attributes:
        copy: bytes per second, read and written, of torch's copy of a gigabyte.
        flops: operations per second of torch's product of square matrices, by dtype.
    """

    copy: float = 0.0
    flops: dict[str, float] = field(default_factory=dict)

    def shortest(
        self, reads: int, writes: int, flops: float, arithmetic: str = ""
    ) -> tuple[float, str]:
        """The shortest possible time in nanoseconds, and the unit of the limiting rate.

        The time is that of moving the bytes or of computing, whichever is longer. If torch has no
        product of a dtype on this card, only the bytes count.
        """
        memory = (reads + writes) / self.copy
        rate = self.flops.get(arithmetic, 0.0)
        computing = flops / rate if rate else 0.0
        return max(memory, computing) * 1e9, "TFLOP/s" if computing > memory else "GB/s"


class GpuMachine:
    """Measures the limits in a child process and keeps the best."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.limits = GpuLimits()
        self.problem = ""
        #: Clocks, temperature and power at each measurement.
        self.states: list[dict[str, str]] = []

    def measure(self) -> None:
        """Measure once more."""
        found: dict[str, Any] = self._peer.ask({"do": "limits"})
        if "copy" not in found:
            self.problem = str(found.get("failed", "the process did not answer"))
            return
        self.limits.copy = max(self.limits.copy, found["copy"])
        for dtype, rate in found["flops"].items():
            self.limits.flops[dtype] = max(self.limits.flops.get(dtype, 0.0), rate)
        self.states.append(found["state"])

    def line(self) -> str:
        """The limits in words."""
        if not self.limits.copy:
            return f"the card's limits are unknown: {self.problem}"
        rates = ", ".join(f"{dtype} {rate / 1e12:.0f}" for dtype, rate in self.limits.flops.items())
        return f"this card: copying {self.limits.copy / 1e9:.0f} GB/s; products in TFLOP/s: {rates}"

    def clocks(self) -> str:
        """The clocks during the run, in words."""
        seen = [
            f"{state['clocks.sm']} at {state['temperature.gpu']} °C, {state['power.draw']}"
            for state in self.states
            if state
        ]
        return (
            f"clocks of the multiprocessors during the run: {'; '.join(seen)}"
            if seen
            else "clocks are unknown: nvidia-smi is missing"
        )
