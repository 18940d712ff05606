# SPDX-License-Identifier: Apache-2.0
"""What the card does at most, measured by a child process in the same run, and how long a case must take at least by that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernels.peers import Peer


@dataclass
class GpuLimits:
    """The best of all measurements of a run.

    Attributes:
        copy: bytes a second read and written by torch's copy of a gigabyte.
        flops: operations a second of torch's product of square matrices, by dtype.
    """

    copy: float = 0.0
    flops: dict[str, float] = field(default_factory=dict)

    def shortest(
        self, reads: int, writes: int, flops: float, arithmetic: str = ""
    ) -> tuple[float, str]:
        """The nanoseconds that moving the bytes or computing takes at least, whichever is more, and which one it is.

        A dtype that torch has no product of on this card counts for its bytes alone.
        """
        memory = (reads + writes) / self.copy
        rate = self.flops.get(arithmetic, 0.0)
        computing = flops / rate if rate else 0.0
        return max(memory, computing) * 1e9, "TFLOP/s" if computing > memory else "GB/s"


class GpuMachine:
    """Asks a child process for the limits as often as it is told to and keeps the best."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.limits = GpuLimits()
        self.problem = ""
        #: Clocks, temperature and power after each measurement.
        self.states: list[dict[str, str]] = []

    def measure(self) -> None:
        """Measure once more."""
        found: dict[str, Any] = self._peer.ask({"do": "limits"})
        if "copy" not in found:
            self.problem = str(found.get("failed", "the process does not answer"))
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
        """How the clocks went."""
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
