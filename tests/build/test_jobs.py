# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vllm_build import jobs

if TYPE_CHECKING:
    from pathlib import Path

GIB = jobs.GIB


@pytest.mark.parametrize(
    ("cpus", "memory", "expected"),
    [(8, 64 * GIB, 8), (8, 4 * GIB, 2), (8, GIB // 4, 1), (1, 64 * GIB, 1), (4, 8 * GIB, 4)],
)
def test_the_smaller_of_cpus_and_memory(cpus: int, memory: int, expected: int) -> None:
    assert jobs.decide(None, unit_bytes=2 * GIB, cpus=cpus, memory=memory).count == expected


def test_the_user_wins() -> None:
    chosen = jobs.decide(7, unit_bytes=64 * GIB, cpus=1, memory=GIB)
    assert chosen.count == 7
    assert chosen.why == ("MAX_JOBS=7",)


def cgroup(root: Path, cpu_max: str, memory_max: str, current: str) -> tuple[Path, Path]:
    folder = root / "sys" / "fs" / "cgroup" / "job" / "step"
    folder.mkdir(parents=True)
    (folder.parent / "cpu.max").write_text(cpu_max, encoding="ascii")
    (folder / "memory.max").write_text(memory_max, encoding="ascii")
    (folder / "memory.current").write_text(current, encoding="ascii")
    proc = root / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text("0::/job/step\n", encoding="ascii")
    (proc / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable: 33554432 kB\n", encoding="ascii")
    return root / "sys", proc


def test_quota_of_an_outer_cgroup_counts(tmp_path: Path) -> None:
    sys_root, proc_root = cgroup(tmp_path, "100000 100000", "max", "0")
    assert jobs.cpu_limit(sys_root, proc_root) == 1


def test_cgroup_memory_less_what_is_used(tmp_path: Path) -> None:
    sys_root, proc_root = cgroup(tmp_path, "max 100000", str(4 * GIB), str(GIB))
    assert jobs.memory_limit(sys_root, proc_root) == 3 * GIB


def test_available_memory_without_a_limit(tmp_path: Path) -> None:
    sys_root, proc_root = cgroup(tmp_path, "max 100000", "max", "0")
    assert jobs.memory_limit(sys_root, proc_root) == 32 * GIB


def test_nothing_known_limits_nothing(tmp_path: Path) -> None:
    assert jobs.memory_limit(tmp_path / "no-sys", tmp_path / "no-proc") is None
