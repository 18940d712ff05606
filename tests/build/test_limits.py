# SPDX-License-Identifier: Apache-2.0
"""Build contract, section 4: the limits of a process, read from fake /proc and cgroup folders."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vllm_build.native import machine_limits
from vllm_build.native.machine_limits import GIB
from vllm_build.util import paths

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

INFINITE = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@pytest.fixture(autouse=True)
def no_limits_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(resource, "getrlimit", lambda _: INFINITE)


def machine(
    root: Path, *, cgroup: str, mounts: list[tuple[str, str, str]], files: Mapping[str, str]
) -> Path:
    """Write ``proc`` and the files of mounts.

    Each mount is (shown group, folder below root, file system with options).
    """
    proc = root / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(cgroup)
    (proc / "meminfo").write_text(
        "MemTotal: 99 kB\nMemAvailable:   33554432 kB\nHugePages_Total: 0\n"
    )
    lines = ["22 1 8:1 / / rw - ext4 /dev/sda rw"]
    for group, folder, system in mounts:
        kind, options = system.split(" ", 1) if " " in system else (system, "rw")
        (root / folder).mkdir(parents=True, exist_ok=True)
        lines.append(
            f"30 22 0:26 {group} {root / folder} rw,nosuid shared:4 - {kind} {kind} rw,{options}"
        )
    (proc / "self" / "mountinfo").write_text("\n".join(lines) + "\n")
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return proc


V2 = [("/", "cg", "cgroup2")]
V1 = [("/", "cg/cpu", "cgroup cpu,cpuacct"), ("/", "cg/memory", "cgroup memory")]
HYBRID = [*V1, ("/", "cg/unified", "cgroup2")]
NO_LIMIT_V1 = "9223372036854771712\n"


@pytest.mark.parametrize(
    ("mounts", "cgroup", "files", "cpus"),
    [
        pytest.param(V2, "0::/job/step\n", {"cg/job/step/cpu.max": "200000 100000\n"}, 2, id="v2"),
        pytest.param(
            V2,
            "0::/job/step\n",
            {"cg/job/step/cpu.max": "max 100000", "cg/job/cpu.max": "300000 100000"},
            3,
            id="v2, outer group",
        ),
        pytest.param(
            V2, "0::/job\n", {"cg/job/cpu.max": "50000 100000"}, 1, id="less than one CPU"
        ),
        pytest.param(V2, "0::/job\n", {"cg/job/cpu.max": "max 100000"}, 8, id="no quota"),
        pytest.param(
            V2, "0::/job\n", {"cg/job/cpu.max": "6400000 100000"}, 8, id="affinity is tighter"
        ),
        pytest.param(V2, "0::/job\n", {"cg/job/cpu.max": "garbage"}, 8, id="garbage"),
        pytest.param(
            V2, "0::/\n", {"cg/cpu.max": "400000 100000"}, 4, id="v2, root of a container"
        ),
        pytest.param(
            V1,
            "4:cpu,cpuacct:/job\n3:memory:/job\n",
            {"cg/cpu/job/cpu.cfs_quota_us": "250000\n", "cg/cpu/job/cpu.cfs_period_us": "100000\n"},
            2,
            id="v1",
        ),
        pytest.param(
            V1,
            "4:cpu,cpuacct:/job\n",
            {"cg/cpu/job/cpu.cfs_quota_us": "-1\n", "cg/cpu/job/cpu.cfs_period_us": "100000\n"},
            8,
            id="v1, none",
        ),
        pytest.param(
            [("/docker/abc", "cg/cpu", "cgroup cpu")],
            "4:cpu:/docker/abc\n",
            {"cg/cpu/cpu.cfs_quota_us": "100000", "cg/cpu/cpu.cfs_period_us": "100000"},
            1,
            id="v1, container sees its group as root",
        ),
        pytest.param(
            HYBRID,
            "4:cpu,cpuacct:/job\n0::/\n",
            {"cg/cpu/job/cpu.cfs_quota_us": "300000", "cg/cpu/job/cpu.cfs_period_us": "100000"},
            3,
            id="hybrid",
        ),
        pytest.param([], "0::/job\n", {}, 8, id="not mounted"),
        pytest.param(V2, "", {}, 8, id="no membership"),
        pytest.param(V2, "nonsense\n", {}, 8, id="unreadable membership"),
        pytest.param(
            V2,
            "0::/../../elsewhere\n",
            {"cg/cpu.max": "200000 100000"},
            2,
            id="outside of the mount",
        ),
    ],
)
def test_cpus(
    tmp_path: Path,
    mounts: list[tuple[str, str, str]],
    cgroup: str,
    files: Mapping[str, str],
    cpus: int,
) -> None:
    proc = machine(tmp_path, cgroup=cgroup, mounts=mounts, files=files)
    assert min(limit.amount for limit in machine_limits.cpu_limits(proc)) == cpus


@pytest.mark.parametrize(
    ("mounts", "cgroup", "files", "memory"),
    [
        pytest.param(
            V2,
            "0::/job\n",
            {"cg/job/memory.max": "max\n", "cg/job/memory.current": "5\n"},
            32 * GIB,
            id="available",
        ),
        pytest.param(
            V2,
            "0::/job\n",
            {"cg/job/memory.max": str(4 * GIB), "cg/job/memory.current": str(GIB)},
            3 * GIB,
            id="v2",
        ),
        pytest.param(
            V2,
            "0::/job\n",
            {
                "cg/job/memory.max": str(4 * GIB),
                "cg/job/memory.current": str(4 * GIB),
                "cg/job/memory.stat": f"anon {GIB}\ninactive_file {2 * GIB}\nactive_file {GIB}\n",
            },
            2 * GIB + GIB // 2,
            id="v2, file cache can be taken back",
        ),
        pytest.param(
            V2,
            "0::/job/step\n",
            {"cg/job/memory.max": str(2 * GIB), "cg/job/step/memory.max": "max"},
            2 * GIB,
            id="outer group",
        ),
        pytest.param(
            V2,
            "0::/job\n",
            {"cg/job/memory.max": str(GIB), "cg/job/memory.current": str(2 * GIB)},
            0,
            id="over the limit",
        ),
        pytest.param(
            V1,
            "3:memory:/job\n",
            {
                "cg/memory/job/memory.limit_in_bytes": str(4 * GIB),
                "cg/memory/job/memory.usage_in_bytes": str(GIB),
                "cg/memory/memory.limit_in_bytes": NO_LIMIT_V1,
            },
            3 * GIB,
            id="v1",
        ),
        pytest.param(
            V1,
            "3:memory:/job\n",
            {
                "cg/memory/job/memory.limit_in_bytes": str(4 * GIB),
                "cg/memory/job/memory.usage_in_bytes": str(4 * GIB),
                "cg/memory/job/memory.stat": (
                    f"inactive_file 5\ntotal_inactive_file {3 * GIB}\ntotal_active_file 0\n"
                ),
            },
            3 * GIB,
            id="v1, file cache can be taken back",
        ),
        pytest.param(
            V1,
            "3:memory:/job\n",
            {"cg/memory/memory.limit_in_bytes": NO_LIMIT_V1},
            32 * GIB,
            id="v1, no limit",
        ),
        pytest.param(V2, "0::/job\n", {"cg/job/memory.max": "garbage"}, 32 * GIB, id="garbage"),
    ],
)
def test_memory(
    tmp_path: Path,
    mounts: list[tuple[str, str, str]],
    cgroup: str,
    files: Mapping[str, str],
    memory: int,
) -> None:
    proc = machine(tmp_path, cgroup=cgroup, mounts=mounts, files=files)
    assert min(limit.amount for limit in machine_limits.memory_limits(proc)) == memory


@pytest.mark.parametrize("name", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_resource_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    proc = machine(tmp_path, cgroup="", mounts=[], files={})
    limited = getattr(resource, name)
    monkeypatch.setattr(
        resource, "getrlimit", lambda which: (4 * GIB, 8 * GIB) if which == limited else INFINITE
    )
    tightest = min(machine_limits.memory_limits(proc), key=lambda limit: limit.amount)
    assert (tightest.amount, tightest.source) == (4 * GIB, f"{name} of 4.0 GiB")


def test_a_real_resource_limit_is_seen() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)); from "
        "vllm_build.native import job_count;"
    )
    code += "print(job_count.decide(None, None, device='cpu', cpus=64).jobs)"
    environ = {**os.environ, "PYTHONPATH": str(paths.library_folder())}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert int(found.stdout) <= 2


def test_nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine_limits.memory_limits(tmp_path) == []
    assert [limit.amount for limit in machine_limits.cpu_limits(tmp_path)] == [8]
    # macOS has no CPU affinity.
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert [limit.amount for limit in machine_limits.cpu_limits(tmp_path)] == [1]


@given(
    cgroup=st.text(max_size=40) | st.sampled_from(["0::/a", "3:memory:/a"]),
    value=st.text("0123456789 maxgin\n-", max_size=20),
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=50,
)
def test_no_content_crashes_it(
    tmp_path_factory: pytest.TempPathFactory, cgroup: str, value: str
) -> None:
    files = {
        "cg/a/cpu.max": value,
        "cg/a/memory.max": value,
        "cg/a/memory.stat": value,
        "cg/memory/a/memory.limit_in_bytes": value,
    }
    written = cgroup.encode("utf-8", "replace").decode()
    proc = machine(
        tmp_path_factory.mktemp("machine"), cgroup=written, mounts=[*V2, V1[1]], files=files
    )
    assert all(limit.amount >= 1 for limit in machine_limits.cpu_limits(proc))
    assert all(limit.amount >= 0 for limit in machine_limits.memory_limits(proc))
