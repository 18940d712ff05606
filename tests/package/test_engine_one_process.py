# SPDX-License-Identifier: Apache-2.0
"""Where the engine computes in its own process, and with how many threads."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from vllm._kernels.engine import one_process
from vllm._kernels.engine.one_process import Cpu

#: Two cores with two CPUs each, on one node.
TWO = [Cpu(0, 0), Cpu(1, 0), Cpu(0, 0), Cpu(1, 0)]
MANY = [Cpu(core, 0) for core in range(16)]


@pytest.mark.parametrize(
    ("cpus", "limit", "environ", "expected"),
    [
        (TWO, 4, {}, 2),
        (TWO, 4, {"VLLM_CPU_OMP_THREADS_BIND": ""}, 2),
        (TWO, 1, {}, 1),  # the control group allows one CPU
        (MANY, 16, {}, 15),
        (MANY, 8, {}, 7),
        (MANY, 16, {"VLLM_CPU_NUM_OF_RESERVED_CPU": "4"}, 12),
        (TWO, 4, {"VLLM_CPU_NUM_OF_RESERVED_CPU": "2"}, 1),
        (TWO, 4, {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}, 0),
        (TWO, 4, {"OMP_NUM_THREADS": "3"}, 0),
        (TWO, 4, {"VLLM_CPU_OMP_THREADS_BIND": "0-1"}, None),
        ([*TWO, Cpu(2, 1)], 5, {}, None),
        ([*TWO, Cpu(2, 1)], 5, {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}, None),
        ([], 1, {}, None),
    ],
)
def test_threads(
    cpus: list[Cpu], limit: int, environ: dict[str, str], expected: int | None
) -> None:
    assert one_process.threads(cpus, limit, environ) == expected


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OMP_NUM_THREADS",
        "VLLM_CPU_OMP_THREADS_BIND",
        "VLLM_CPU_NUM_OF_RESERVED_CPU",
    ):
        monkeypatch.setenv(name, "")  # restores the variable even if it is absent now
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("environ")
@pytest.mark.parametrize(
    ("before", "chosen", "cpus", "executor"),
    [
        ("uni", "mp", TWO, "uni"),
        ("uni", "mp", [*TWO, Cpu(2, 1)], "mp"),
        ("mp", "mp", TWO, "mp"),  # the caller asked for it, or there are several workers
        ("ray", "ray", TWO, "ray"),
        ("uni", "uni", TWO, "uni"),  # without processes at all
    ],
)
def test_the_executor(before: str, chosen: str, cpus: list[Cpu], executor: str) -> None:
    parallel = SimpleNamespace(distributed_executor_backend=chosen)
    one_process.use(parallel, before, cpus, 4)
    assert parallel.distributed_executor_backend == executor
    changed = executor != chosen
    assert os.environ.get("OMP_NUM_THREADS") == ("2" if changed else None)


@pytest.mark.usefixtures("environ")
def test_openmp_chooses_the_threads_of_workers_that_are_not_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    parallel = SimpleNamespace(distributed_executor_backend="mp")
    one_process.use(parallel, "uni", TWO, 4)
    assert parallel.distributed_executor_backend == "uni"
    assert "OMP_NUM_THREADS" not in os.environ
