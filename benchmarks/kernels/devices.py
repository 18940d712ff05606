# SPDX-License-Identifier: Apache-2.0
"""The devices that a child process measures on.

A device decides where tensors are created, how calls are timed, and how much data exceeds the
caches.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    Calls = Sequence[Callable[[], object]]

#: Shortest sample; in shorter ones, the clock dominates.
SAMPLE_NS = 50_000
#: Shortest sample on a GPU, whose events have a resolution of half a microsecond; and the largest
#: number of calls in a sample: the queue holds a thousand kernels.
GPU_SAMPLE_NS, GPU_CALLS = 200_000, 64
#: nvidia-smi's queries for the state of a card.
STATE = (
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "temperature.gpu",
    "power.draw",
    "power.limit",
    "driver_version",
)


class Cpu:
    """The cores of this machine; calls are timed with the clock."""

    name = "cpu"
    #: Total size of all copies of a case's data: several times the last-level cache of most CPUs.
    cold_total = 256 << 20

    def __init__(self) -> None:
        self.late = False

    @staticmethod
    def problem() -> str:
        """Why nothing can run here; empty if something can."""
        return ""

    @staticmethod
    def tensors() -> AbstractContextManager[Any]:
        """A context in which tensors are created on the device by default."""
        return nullcontext()

    @staticmethod
    def facts() -> dict[str, Any]:
        """Facts about the device for a report."""
        return {"threads": torch.get_num_threads()}

    def settle(self) -> None:
        """Wait for running work and free unused memory."""

    def count(self, ns: float) -> int:
        """Number of calls in a sample, if a call takes ``ns``."""
        return max(1, int(SAMPLE_NS / ns))

    def sample(self, calls: Calls, first: int, count: int) -> float:
        """Nanoseconds per call: the mean of ``count`` calls, beginning with ``first``."""
        clock = time.perf_counter_ns
        begin = clock()
        for i in range(first, first + count):
            calls[i % len(calls)]()
        return (clock() - begin) / count


class Cuda:
    """One GPU; times are measured between two events on its stream.

    They exclude the time that Python needs to queue the calls: a kernel that only waits runs first,
    for longer than queueing takes, so that all calls are queued when the GPU begins. A call that
    waits for the GPU cannot be queued ahead; ``late`` then tells that the time includes the host's.
    """

    name = "cuda"

    def __init__(self) -> None:
        self.late = False
        self.cold_total = 256 << 20
        self._cycles_per_ns, self._wait_ns = 1.0, 1e5
        self._usable = not self.problem()
        if not self._usable:
            return
        self.cold_total = max(
            self.cold_total, 4 * torch.cuda.get_device_properties(0).L2_cache_size
        )
        torch.cuda._sleep(1000)  # noqa: SLF001 - no public name
        cycles = 10_000_000
        self._cycles_per_ns = cycles / min(
            self.between_events(lambda: torch.cuda._sleep(cycles))  # noqa: SLF001
            for _ in range(3)
        )

    @staticmethod
    def problem() -> str:
        """Why nothing can run here; empty if something can."""
        if torch.cuda.is_available():
            return ""
        if torch.version.cuda is None:
            return f"torch {torch.__version__} is a build without CUDA: install torch for CUDA 13"
        driver = (
            "nvidia-smi is not on PATH, so the driver may be missing"
            if shutil.which("nvidia-smi") is None
            else "nvidia-smi is there"
        )
        return f"torch {torch.__version__} for CUDA {torch.version.cuda} sees no GPU ({driver})"

    @staticmethod
    def tensors() -> AbstractContextManager[Any]:
        """A context in which tensors are created on the device by default."""
        device: AbstractContextManager[Any] = torch.device("cuda")
        return device

    @staticmethod
    def facts() -> dict[str, Any]:
        """Facts about the device for a report."""
        found = torch.cuda.get_device_properties(0)
        capability = f"{found.major}.{found.minor}"
        return {
            "gpu": found.name,
            "capability": capability,
            "cuda": torch.version.cuda,
            "l2_mib": found.L2_cache_size >> 20,
            **state(),
        }

    def settle(self) -> None:
        """Wait for running work and free unused memory, for the other processes on the card."""
        if self._usable:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    def count(self, ns: float) -> int:
        """Number of calls in a sample, if a call takes ``ns``."""
        return max(1, min(GPU_CALLS, int(GPU_SAMPLE_NS / ns)))

    @staticmethod
    def between_events(work: Callable[[], object]) -> float:
        """Nanoseconds that the GPU needs for the work queued by ``work``."""
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e6

    def sample(self, calls: Calls, first: int, count: int) -> float:
        """Nanoseconds per call on the GPU, as in :meth:`Cpu.sample`."""
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        started = time.perf_counter_ns()
        torch.cuda._sleep(int(self._wait_ns * self._cycles_per_ns))  # noqa: SLF001
        begin.record()
        for i in range(first, first + count):
            calls[i % len(calls)]()
        end.record()
        self.late = begin.query()
        # 1.5 times the time that queueing took now, and at most a tenth of a second.
        self._wait_ns = min(1e8, 1.5 * (time.perf_counter_ns() - started) + 2e4)
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e6 / count


def state() -> dict[str, str]:
    """Clocks, temperature and power of the card; empty without nvidia-smi."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    index = str(torch.cuda.current_device())
    command = [program, f"--id={index}", f"--query-gpu={','.join(STATE)}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return (
        dict(zip(STATE, values, strict=True))
        if done.returncode == 0 and len(values) == len(STATE)
        else {}
    )


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of ten runs."""
    work()
    return min(Cuda.between_events(work) for _ in range(10)) * 1e-9


def _copied() -> float:
    """Bytes per second that torch's copy reads and writes."""
    size = min(1 << 30, torch.cuda.mem_get_info()[0] // 8)
    source, target = torch.zeros(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)
    return float(2 * size / _fastest(lambda: target.copy_(source)))


def _multiplied(dtype: torch.dtype) -> float:
    """Operations per second of torch's product of square matrices."""
    rows = 8192
    x = (
        torch.randint(-127, 128, (rows, rows), dtype=dtype)
        if dtype == torch.int8
        else torch.randn(rows, rows).to(dtype)
    )
    one = torch.ones(())

    def product() -> torch.Tensor:
        if dtype == torch.int8:
            return torch._int_mm(x, x.t())  # noqa: SLF001 - no public name
        if dtype == torch.float8_e4m3fn:
            return torch._scaled_mm(x, x.t(), one, one, out_dtype=torch.bfloat16)  # noqa: SLF001 - no public name
        return torch.mm(x, x.t())

    return 2.0 * rows**3 / _fastest(product)


def limits() -> dict[str, Any]:
    """Measure the card's limits with torch's copy and products, and its state meanwhile.

    The limits are bytes moved and operations per second.
    """
    dtypes = [torch.bfloat16, torch.float16, torch.float32, torch.int8]
    if torch.cuda.get_device_capability() >= (8, 9):
        dtypes.append(torch.float8_e4m3fn)
    with Cuda.tensors():
        found = {
            "copy": _copied(),
            "flops": {str(dtype).removeprefix("torch."): _multiplied(dtype) for dtype in dtypes},
        }
    torch.cuda.empty_cache()
    return {**found, "state": state()}


DEVICES: dict[str, type[Cpu | Cuda]] = {"cpu": Cpu, "cuda": Cuda}
