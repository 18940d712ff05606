# SPDX-License-Identifier: Apache-2.0
"""Build contract, section 4: jobs, threads and the pool of heavy units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from vllm_build.kernels.kernel_records import MEMORY_CLASSES
from vllm_build.native import job_count, machine_limits
from vllm_build.native.machine_limits import Limit

GIB = job_count.GIB
ORDINARY, HEAVY = MEMORY_CLASSES["ordinary"], MEMORY_CLASSES["heavy"]


@pytest.mark.parametrize(
    ("cpus", "memory", "expected"),
    [
        (8, 64 * GIB, 8),
        (8, 3 * ORDINARY, 3),
        (8, 3 * ORDINARY - 1, 2),
        (8, ORDINARY, 1),
        (8, GIB // 4, 1),
        (1, 64 * GIB, 1),
        (8, 4 * GIB, 2),
    ],
)
def test_the_smaller_of_cpus_and_memory(cpus: int, memory: int, expected: int) -> None:
    assert job_count.decide(None, None, device="cpu", cpus=cpus, memory=memory).jobs == expected


@pytest.mark.parametrize(
    ("device", "toolkit", "max_jobs", "threads", "expected"),
    [
        # MAX_JOBS is set
        ("cpu", None, 7, None, (7, None)),
        ("cpu", None, 7, 4, (7, None)),
        ("rocm", "6.4", 7, 4, (7, None)),
        ("xpu", None, 7, 4, (7, None)),
        ("tpu", None, 7, 4, (7, None)),
        ("empty", None, 7, 4, (7, None)),
        # CUDA 11.2 and newer
        ("cuda", "11.2", 8, None, (8, 1)),
        ("cuda", "11.2", 8, 2, (4, 2)),
        ("cuda", "12.9", 9, 2, (4, 2)),
        ("cuda", "13.0", 2, 4, (1, 4)),
        ("cuda", None, 8, 8, (1, 8)),
        # older CUDA
        ("cuda", "11.1", 8, 2, (8, None)),
        ("cuda", "10.2", 8, None, (8, None)),
        # without MAX_JOBS: the same division of the machine's limits (16 CPUs, 24 GiB)
        ("cuda", "12.9", None, 4, (4, 4)),
        ("cuda", "12.9", None, None, (16, 1)),
        ("cpu", None, None, 4, (16, None)),
    ],
)
def test_jobs_and_threads(
    device: str,
    toolkit: str | None,
    max_jobs: int | None,
    threads: int | None,
    expected: tuple[int, int | None],
) -> None:
    chosen = job_count.decide(
        max_jobs,
        threads,
        device=device,
        toolkit_version=Version(toolkit) if toolkit else None,
        cpus=16,
        memory=24 * GIB,
    )
    assert (chosen.jobs, chosen.nvcc_threads) == expected


@pytest.mark.parametrize(
    ("cpus", "memory", "units", "expected"),
    [
        (16, 64 * GIB, 48, (12, 10)),  # ten heavy ones take 60 GiB, two ordinary ones 3 GiB
        (16, 16 * GIB, 48, (4, 2)),
        (16, 16 * GIB, 1, (7, 1)),
        (4, 64 * GIB, 48, (4, 4)),
        (16, 4 * GIB, 48, (1, 1)),
        (2, 7 * GIB, 3, (1, 1)),
    ],
)
def test_heavy_units_have_a_pool_that_fits_memory(
    cpus: int, memory: int, units: int, expected: tuple[int, int]
) -> None:
    chosen = job_count.decide(
        None, None, device="cuda", heavy_units=units, cpus=cpus, memory=memory
    )
    assert (chosen.jobs, chosen.heavy_jobs) == expected


def test_max_jobs_does_not_lift_the_bound_of_heavy_units() -> None:
    chosen = job_count.decide(64, None, device="cuda", heavy_units=48, cpus=16, memory=13 * GIB)
    assert (chosen.jobs, chosen.heavy_jobs) == (64, 2)
    assert "MAX_JOBS=64" in chosen.why


def test_without_pools_every_job_may_be_a_heavy_one() -> None:
    chosen = job_count.decide(
        None, None, device="cuda", heavy_units=48, pools=False, cpus=16, memory=13 * GIB
    )
    assert (chosen.jobs, chosen.heavy_jobs) == (2, 2)


@given(
    cpus=st.integers(1, 512),
    memory=st.integers(0, 4096 * GIB),
    units=st.integers(0, 100),
    threads=st.none() | st.integers(1, 64),
    max_jobs=st.none() | st.integers(1, 1000),
    pools=st.booleans(),
    device=st.sampled_from(["cuda", "rocm", "cpu"]),
)
def test_what_runs_at_once_fits(
    cpus: int,
    memory: int,
    units: int,
    threads: int | None,
    max_jobs: int | None,
    device: str,
    *,
    pools: bool,
) -> None:
    chosen = job_count.decide(
        max_jobs, threads, device=device, heavy_units=units, pools=pools, cpus=cpus, memory=memory
    )
    assert chosen.jobs >= chosen.heavy_jobs >= 1
    assert (chosen.nvcc_threads is None) == (device != "cuda")
    assert chosen.why
    if max_jobs is None:
        assert chosen.jobs <= cpus
        running = min(units, chosen.heavy_jobs if pools else chosen.jobs)
        peak = running * HEAVY + (chosen.jobs - running) * ORDINARY
        # One compiler always runs, even with too little memory.
        assert chosen.jobs == 1 or peak <= memory


def test_too_little_memory_for_one_unit_is_said() -> None:
    assert any(
        "one unit may need more than the memory" in reason
        for reason in job_count.decide(None, None, device="cpu", cpus=4, memory=GIB).why
    )
    assert any(
        "one unit may need more than the memory" in reason
        for reason in job_count.decide(
            None, None, device="cuda", heavy_units=1, cpus=4, memory=4 * GIB
        ).why
    )


def test_a_heavy_unit_that_does_not_fit_is_refused() -> None:
    def lacking(memory: int, max_jobs: int | None = None) -> str | None:
        return job_count.decide(
            max_jobs,
            None,
            device="cuda",
            heavy_units=3,
            heavy=12 * GIB,
            cpus=4,
            memory=memory * GIB,
        ).lacking

    assert lacking(8) == (
        "3 units of this build may take 12 GiB of memory each, and this process may use 8.0 GiB"
    )
    assert lacking(12) is None
    assert lacking(8, max_jobs=1) is None, "the user insists"


def test_the_machine_is_asked_for_what_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        machine_limits, "cpu_limits", lambda: [Limit(8, "affinity, 8"), Limit(3, "cgroup quota, 3")]
    )
    monkeypatch.setattr(
        machine_limits,
        "memory_limits",
        lambda: [Limit(64 * GIB, "64.0 GiB available"), Limit(4 * GIB, "cgroup limit of 4.0 GiB")],
    )
    chosen = job_count.decide(None, None, device="cpu")
    assert chosen.jobs == 2
    assert chosen.why == (
        "CPUs: cgroup quota, 3",
        "memory: cgroup limit of 4.0 GiB",
        "units of 1.5 GiB that fit: 2",
    )


def test_unknown_memory_limits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_limits, "memory_limits", list)
    chosen = job_count.decide(None, None, device="cpu", heavy_units=1, cpus=12)
    assert (chosen.jobs, chosen.heavy_jobs) == (12, 12)
    assert "memory: unknown" in chosen.why


@pytest.mark.parametrize(
    ("device", "threads", "environ", "expected"),
    [
        ("cuda", 4, {}, {"NVCC_APPEND_FLAGS": "--threads=4"}),
        (
            "cuda",
            2,
            {"NVCC_APPEND_FLAGS": "-lineinfo"},
            {"NVCC_APPEND_FLAGS": "-lineinfo --threads=2"},
        ),
        ("cuda", None, {"NVCC_APPEND_FLAGS": "-lineinfo"}, {}),
        ("cpu", 4, {}, {}),
    ],
)
def test_threads_reach_nvcc_by_the_environment(
    device: str, threads: int | None, environ: dict[str, str], expected: dict[str, str]
) -> None:
    assert (
        job_count.decide(8, threads, device=device, cpus=8, memory=GIB).environment(environ)
        == expected
    )
