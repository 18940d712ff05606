# SPDX-License-Identifier: Apache-2.0
"""What a child process measures on: where tensors are made, how a call is timed, how much memory is out of the caches."""

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

#: A sample is at least this long: shorter ones measure the clock.
SAMPLE_NS = 50_000
#: The same on a GPU, whose events tell half a microsecond; and the most calls in one sample: the
#: queue has room for a thousand kernels.
GPU_SAMPLE_NS, GPU_CALLS = 200_000, 64
#: What nvidia-smi knows of the state of a card.
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
    """This machine's cores; a call is timed by the clock."""

    name = "cpu"
    #: All copies of a case's data together: several times the last cache of most CPUs.
    cold_total = 256 << 20

    def __init__(self) -> None:
        self.late = False

    @staticmethod
    def problem() -> str:
        """Why nothing can run here; empty: it can."""
        return ""

    @staticmethod
    def tensors() -> AbstractContextManager[Any]:
        """Where tensors are made that nobody says a device for."""
        return nullcontext()

    @staticmethod
    def facts() -> dict[str, Any]:
        """What a report says of the device."""
        return {"threads": torch.get_num_threads()}

    def settle(self) -> None:
        """Wait for what runs, and give back memory that nobody uses."""

    def count(self, ns: float) -> int:
        """Calls in a sample, where one takes ``ns``."""
        return max(1, int(SAMPLE_NS / ns))

    def sample(self, calls: Calls, first: int, count: int) -> float:
        """Nanoseconds of one call, the mean of ``count``, from the ``first`` on, in turn."""
        clock = time.perf_counter_ns
        begin = clock()
        for i in range(first, first + count):
            calls[i % len(calls)]()
        return (clock() - begin) / count


class Cuda:
    """One GPU; the time between two events on its stream, without the time that Python takes to queue the calls.

    A kernel that only waits goes first, for longer than queueing takes, so that the GPU has all
    calls at hand when it begins. A call that waits for the GPU itself cannot be queued ahead;
    ``late`` then says that the time is the host's as well.
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
        torch.cuda._sleep(1000)  # noqa: SLF001 - its only name
        cycles = 10_000_000
        self._cycles_per_ns = cycles / min(
            self.between_events(lambda: torch.cuda._sleep(cycles))  # noqa: SLF001
            for _ in range(3)
        )

    @staticmethod
    def problem() -> str:
        """Why nothing can run here; empty: it can."""
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
        """Where tensors are made that nobody says a device for."""
        device: AbstractContextManager[Any] = torch.device("cuda")
        return device

    @staticmethod
    def facts() -> dict[str, Any]:
        """What a report says of the device."""
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
        """Wait for what runs, and give back memory that nobody uses: the other processes are on the same card."""
        if self._usable:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    def count(self, ns: float) -> int:
        """Calls in a sample, where one takes ``ns``."""
        return max(1, min(GPU_CALLS, int(GPU_SAMPLE_NS / ns)))

    @staticmethod
    def between_events(work: Callable[[], object]) -> float:
        """Nanoseconds of what is queued on the GPU."""
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e6

    def sample(self, calls: Calls, first: int, count: int) -> float:
        """Nanoseconds of one call on the GPU, the mean of ``count``, from the ``first`` on, in turn."""
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        started = time.perf_counter_ns()
        torch.cuda._sleep(int(self._wait_ns * self._cycles_per_ns))  # noqa: SLF001
        begin.record()
        for i in range(first, first + count):
            calls[i % len(calls)]()
        end.record()
        self.late = begin.query()
        # Half as much again as queueing took now; never more than a tenth of a second.
        self._wait_ns = min(1e8, 1.5 * (time.perf_counter_ns() - started) + 2e4)
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e6 / count


def state() -> dict[str, str]:
    """Clocks, temperature and power of the card now; empty where nvidia-smi is not to be had."""
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
    """Seconds of the shortest of ten."""
    work()
    return min(Cuda.between_events(work) for _ in range(10)) * 1e-9


def _copied() -> float:
    """Bytes a second that torch's copy reads and writes."""
    size = min(1 << 30, torch.cuda.mem_get_info()[0] // 8)
    source, target = torch.zeros(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)
    return float(2 * size / _fastest(lambda: target.copy_(source)))


def _multiplied(dtype: torch.dtype) -> float:
    """Operations a second of torch's product of square matrices."""
    rows = 8192
    x = (
        torch.randint(-127, 128, (rows, rows), dtype=dtype)
        if dtype == torch.int8
        else torch.randn(rows, rows).to(dtype)
    )
    one = torch.ones(())

    def product() -> torch.Tensor:
        if dtype == torch.int8:
            return torch._int_mm(x, x.t())  # noqa: SLF001 - its only name
        if dtype == torch.float8_e4m3fn:
            return torch._scaled_mm(x, x.t(), one, one, out_dtype=torch.bfloat16)  # noqa: SLF001 - its only name
        return torch.mm(x, x.t())

    return 2.0 * rows**3 / _fastest(product)


def limits() -> dict[str, Any]:
    """What the card does at most, by torch's own copy and products: bytes moved and operations a second; and its state meanwhile."""
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
