# SPDX-License-Identifier: Apache-2.0
"""A child process that runs one implementation of the ops.

Two libraries that define the same ops cannot share a process, so each peer has its own. The process
reads one JSON object per line and answers with one. ``{"do": "case", …}`` prepares a case and
compares its result with PyTorch's. ``{"do": "time", "seconds": s}`` times it. ``{"do": "limits"}``
measures the GPU. ``{"do": "fit", …}`` only checks whether the library accepts a case's arguments
(``fit``).

Usage: python -m kernels.child PEER cpu|cuda [LIBRARY...]
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kernels import (
    attention,
    caches,
    devices,
    engine,
    flash,
    indexer,
    matmul,
    moe,
    quantisation,
    rotary,
    rowwise,
    stand_ins,
)
from kernels.agreement import Different, compare
from kernels.cases import Case
from kernels.fit import fit
from kernels.workload import BUILDERS, Workload, size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: If an op moves at least this many bytes, each call uses different memory, as consecutive layers
#: of a model do.
COLD_FROM = 8 << 20
COLD_COPIES = 64
#: Above this many operations per byte, arithmetic takes far longer than loading the data, so one
#: copy suffices.
ARITHMETIC = 100
TOPICS = (attention, caches, engine, flash, indexer, matmul, moe, quantisation, rotary, rowwise)


def seed(case: Case, copy: int) -> None:
    """Seed the generator so that a case has the same inputs in every process."""
    digest = hashlib.sha256(
        repr((case.op, case.dtype, case.variant, sorted(case.shape.items()), copy)).encode()
    ).digest()
    torch.manual_seed(int.from_bytes(digest[:7], "little"))


def build(case: Case, copy: int = 0) -> Workload:
    """Create the workload of a case; copies have other values and other memory."""
    seed(case, copy)
    return BUILDERS[case.op](case.op, case, getattr(torch, case.dtype))


def checksum(workload: Workload) -> str:
    """A hash that shows whether two processes have the same inputs."""
    digest = hashlib.sha256()
    for tensor in workload.args:
        if isinstance(tensor, torch.Tensor):
            flat = tensor.detach().contiguous().view(torch.uint8).flatten()
            digest.update(flat[: 1 << 22].cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def footprint(workload: Workload) -> int:
    """Bytes of a workload's tensors; a tensor that is read and written counts once."""
    tensors = {
        t.data_ptr(): t for t in (*workload.args, *workload.outputs) if isinstance(t, torch.Tensor)
    }
    return max(1, size(*tensors.values()))


class Peer:
    """The implementation that this process times."""

    def __init__(
        self, name: str, device: devices.Cpu | devices.Cuda, libraries: Sequence[Path]
    ) -> None:
        self.name, self.device, self.libraries = name, device, libraries
        self.calls: list[Callable[[], object]] = []
        self.keep: list[Workload] = []
        self._turn = 0
        self._count = 1

    def load(self, *, fit_only: bool = False) -> dict[str, Any]:
        """Load the ops; return facts about this process.

        With ``fit_only`` nothing will run, so no GPU is needed.

        Raises:
            RuntimeError: the device cannot be used.
            ImportError, OSError: the libraries are missing or do not load.
        """
        facts = {"torch": torch.__version__, "python": platform.python_version(), "from": "PyTorch"}
        if not fit_only:
            if problem := self.device.problem():
                raise RuntimeError(problem)
            facts |= self.device.facts()
        if self.name == "ours":
            from vllm._kernels import build_info, loader  # noqa: PLC0415 - the other processes must not import vllm

            loader.load()
            facts["from"] = str(loader.loaded()["_C"])
            facts["libraries"] = ", ".join(sorted(loader.loaded()))
            with contextlib.suppress(AttributeError):  # only the CPU kernels have it
                facts["isa"] = torch.ops._C.cpu_isa()  # noqa: SLF001 - torch's name for the namespace
            facts["version"] = next(
                (record.version for record in build_info.installed()), "unknown"
            )
        elif self.name == "official":
            with contextlib.suppress(OSError):
                ctypes.CDLL(
                    os.environ.get("VLLM_BENCH_LIBNUMA", "libnuma.so.1"), mode=ctypes.RTLD_GLOBAL
                )
            if self.device.name == "cuda":
                stand_ins.load(cuda=fit_only)
            for library in self.libraries:
                torch.ops.load_library(str(library))
            facts["from"] = ", ".join(library.name for library in self.libraries)
        return facts

    def _bound(self, workload: Workload) -> Callable[[], object]:
        if self.name in ("ours", "official"):
            return workload.bind()
        if self.name == "eager":
            return lambda: workload.torch(*workload.args)
        return self._compiled(workload)

    @staticmethod
    def _compiled(workload: Workload) -> Callable[[], object]:
        """Compile the workload; the compiled function writes to the op's outputs.

        The copies to the outputs are fused with the computation. Results that the op writes into
        its inputs are returned as new tensors, because inductor 2.13 fails for two inputs written
        in place (KeyError 'buf1').
        """
        apart = [all(out is not a for a in workload.args) for out in workload.outputs]
        outputs = [out for out, own in zip(workload.outputs, apart, strict=True) if own]

        def into(outputs: Sequence[torch.Tensor], *args: Any) -> tuple[torch.Tensor, ...]:
            results = workload.torch(*args)
            if not apart:
                return tuple(results)
            fresh, returned = iter(outputs), []
            for own, result in zip(apart, results, strict=False):
                if own:
                    next(fresh).copy_(result)
                else:
                    returned.append(result)
            return tuple(returned)

        compiled = torch.compile(into, dynamic=False)
        return lambda: compiled(outputs, *workload.args)

    def prepare(self, case: Case) -> dict[str, Any]:
        """Build a case, check its result and prepare to time it.

        Raises:
            AttributeError: the library has no such op.
            Different: the result differs from PyTorch's.
        """
        self.calls, self.keep = [], []
        self.device.settle()
        with self.device.tensors():
            facts = self._prepare(case)
        self.device.settle()
        if "skipped" not in facts:
            for call in self.calls:
                call()
            self._turn, self._count = 0, 1
            self._count = self.device.count(min(self._sample() for _ in range(2)))
            self._sample()
            self._sample()
            facts["host_bound"] = self.device.late
        return facts

    def _prepare(self, case: Case) -> dict[str, Any]:
        if self.name == "compile":
            torch._dynamo.reset()  # noqa: SLF001 - without it, compiled shapes accumulate and the cache overflows
        workload = build(case)
        facts = {
            "checksum": checksum(workload),
            "reads": workload.reads,
            "writes": workload.writes,
            "flops": workload.flops,
            "arithmetic": workload.arithmetic or case.dtype,
            "cold": False,
            "unchecked": workload.unchecked,
        }
        skipped = workload.no_torch or (workload.no_compile if self.name == "compile" else "")
        if skipped and self.name in ("eager", "compile"):
            return {**facts, "skipped": skipped}
        call = self._bound(workload)
        self.check(case, workload, call)
        moved = workload.reads + workload.writes
        copies = 1
        if workload.cold or moved >= COLD_FROM:
            if workload.flops < ARITHMETIC * moved:
                copies = max(1, min(COLD_COPIES, self.device.cold_total // footprint(workload)))
            facts["cold"] = True
        self.keep, self.calls = [workload], [call]
        for copy in range(1, copies):
            self.keep.append(build(case, copy))
            self.calls.append(self._bound(self.keep[-1]))
        return facts

    def check(self, case: Case, workload: Workload, call: Callable[[], object]) -> None:
        """Call the op once and compare the results with PyTorch's for equal inputs.

        Raises:
            Different: they differ.
        """
        if self.name == "eager" or workload.unchecked or workload.no_torch:
            call()
            return
        reference = build(case)
        wanted = reference.torch(*reference.args)
        returned = call()
        returned = list(returned) if isinstance(returned, tuple | list) else [returned]
        results = workload.outputs or returned
        if self.name == "compile" and workload.outputs:
            results = [
                returned.pop(0) if any(out is a for a in workload.args) else out
                for out in workload.outputs
            ]
        for got, want in zip(results, wanted, strict=True):
            compare(got, want, workload.slack)

    def _sample(self) -> float:
        """Nanoseconds per call, the mean over a sample."""
        ns = self.device.sample(self.calls, self._turn, self._count)
        self._turn += self._count
        return ns

    def time(self, seconds: float) -> dict[str, Any]:
        """Time calls for ``seconds``.

        The answer has the median and the minimum of the samples in nanoseconds per call, and the
        width of the middle half of the samples relative to the median.
        """
        samples: list[float] = []
        end = time.perf_counter_ns() + seconds * 1e9
        while not samples or time.perf_counter_ns() < end:
            samples.append(self._sample())
        median = statistics.median(samples)
        quarters = statistics.quantiles(samples, n=4) if len(samples) > 1 else [median] * 3
        return {
            "ns": median,
            "best": min(samples),
            "samples": len(samples),
            "spread": (quarters[2] - quarters[0]) / median,
        }


def _case(request: dict[str, Any]) -> Case:
    return Case(request["op"], request["dtype"], request["shape"], request["variant"])


def answer(peer: Peer, request: dict[str, Any]) -> dict[str, Any]:
    """Execute a request; errors become part of the answer."""
    try:
        if request["do"] == "case":
            return peer.prepare(_case(request))
        if request["do"] == "fit":
            return fit(peer.name, build(_case(request)))
        if request["do"] == "limits":
            return devices.limits()
        return peer.time(request["seconds"])
    except AttributeError as error:
        missing = "has no attribute" in str(error) and "object" in str(error)
        return {"missing": True} if missing else {"failed": f"AttributeError: {error}"}
    except Different as error:
        return {"different": str(error)}
    except Exception as error:  # noqa: BLE001 - the parent reports it and continues with the next case
        words = (
            f"{type(error).__name__}: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        )[:300]
        return {"failed": words, "restart": _is_broken(peer)}


def _is_broken(peer: Peer) -> bool:
    """Whether the process must be replaced: after a GPU error, all later calls fail."""
    try:
        peer.calls, peer.keep = [], []
        peer.device.settle()
    except RuntimeError:
        return True
    return False


def main() -> None:
    """Answer requests until standard input is closed."""
    # Output of libraries must not mix with the answers.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    torch.set_grad_enabled(False)
    name, device, libraries = sys.argv[1], sys.argv[2], [Path(name) for name in sys.argv[3:]]
    try:
        peer = Peer(name, devices.DEVICES[device](), libraries)
        facts = peer.load(fit_only="VLLM_BENCH_FIT" in os.environ)
    except Exception as error:  # noqa: BLE001 - reported by the parent
        print(json.dumps({"failed": f"{type(error).__name__}: {error}"}), file=out, flush=True)
        return
    print(json.dumps(facts), file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(peer, json.loads(line))), file=out, flush=True)


if __name__ == "__main__":
    main()
