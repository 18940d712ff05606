# SPDX-License-Identifier: Apache-2.0
"""A machine for the doctor to examine, and facts of its report."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vllm_build.doctor import examination, machine_facts
from vllm_build.native import machine_limits
from vllm_build.native.machine_limits import GIB, Limit
from vllm_build.toolchain import channel_views

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from vllm_build.doctor.fact import Fact

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Examine = Callable[..., list[Fact]]


def examiner(
    root: Path, tmp_path: Path, program: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Examine:
    """Examines a machine that has all a CPU build needs, changed by variables."""
    tools = tmp_path / "tools"
    for name in ("cc", "c++", "ninja", "apt-get"):
        program(tools / name, f"{name} 1.0")
    program(tools / "cmake", "cmake version 4.4.4")
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    for name in ("CC", "CXX", "CHANNEL"):
        monkeypatch.delenv(name, raising=False)
    package = channel_views.view_of(root) / "linux-64" / "x-1-0.conda"
    package.parent.mkdir(parents=True)
    package.write_bytes(b"")
    monkeypatch.setattr(machine_facts, "NEEDED_BYTES", 0)
    monkeypatch.setattr(machine_limits, "memory_limits", lambda: [Limit(8 * GIB, "8 GiB")])
    monkeypatch.setattr(machine_limits, "cpu_limits", lambda: [Limit(4, "4 CPUs")])

    def run(**variables: str) -> list[Fact]:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return examination.examine(root, os.environ)

    return run


def problems(facts: list[Fact]) -> dict[str, str | None]:
    """Name of each fact that is a problem, and the kind of problem."""
    return {fact.what: fact.problem for fact in facts if fact.problem}


def named(facts: list[Fact], what: str) -> Fact:
    """The only fact of that name."""
    (fact,) = [fact for fact in facts if fact.what == what]
    return fact
