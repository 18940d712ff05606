# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vllm._kernels.platforms import host

if TYPE_CHECKING:
    from pathlib import Path

X86 = """\
processor\t: 0
model name\t: Some CPU @ 2.00GHz: rev 2
flags\t\t: fpu avx2 avx512f

processor\t: 1
model name\t: Other
flags\t\t: fpu
"""
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd sve2\nCPU part\t: 0xd4f\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose kernel has published nothing yet."""
    monkeypatch.setattr(host, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(host, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}.__getitem__)
    (tmp_path / "proc" / "self").mkdir(parents=True)
    return tmp_path


def test_x86(machine: Path) -> None:
    (machine / "proc" / "cpuinfo").write_text(X86)
    assert host.cpu_model() == "Some CPU @ 2.00GHz: rev 2"
    assert host.cpu_flags() == {"fpu", "avx2", "avx512f"}


def test_arm_has_no_model_name(machine: Path) -> None:
    (machine / "proc" / "cpuinfo").write_text(ARM)
    assert host.cpu_model() == platform.machine()
    assert host.cpu_flags() == {"fp", "asimd", "sve2"}


def test_a_kernel_without_information(machine: Path) -> None:
    assert machine.is_dir()
    assert host.cpu_model() == platform.machine()
    assert host.cpu_flags() == frozenset()
    assert host.memory_bytes() == 4096000


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.text(st.characters(blacklist_categories=["Cs"])))
def test_any_text_is_survived(machine: Path, text: str) -> None:
    (machine / "proc" / "cpuinfo").write_bytes(text.encode())
    (machine / "proc" / "self" / "cgroup").write_bytes(text.encode())
    assert host.cpu_model()
    assert all(flag.strip() == flag != "" for flag in host.cpu_flags())
    assert host.memory_bytes() == 4096000


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "3000\n"}, 3000),
        ("0::/a/b\n", {"a/b/memory.max": "2000\n", "a/memory.max": "3000\n"}, 2000),
        ("0::/\n", {"memory.max": "9999999999\n"}, 4096000),
        ("4:cpu,memory:/job\n3:pids:/\n", {"memory/job/memory.limit_in_bytes": "1234\n"}, 1234),
        (
            "4:cpu:/job\n",
            {"job/memory.max": "1\n", "memory/job/memory.limit_in_bytes": "1\n"},
            4096000,
        ),
        ("0::/a\n", {"../memory.max": "5\n"}, 4096000),
        ("0::/../escaped\n", {"memory.max": "5000\n"}, 5000),
    ],
)
def test_memory_of_the_control_group(
    machine: Path, membership: str, files: dict[str, str], expected: int
) -> None:
    (machine / "proc" / "self" / "cgroup").write_text(membership)
    for name, text in files.items():
        path = machine / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert host.memory_bytes() == expected


def test_usable_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= host.usable_cpus() <= (os.cpu_count() or 1)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert host.usable_cpus() == 1
