# SPDX-License-Identifier: Apache-2.0
"""Estimates of a build, and what it says of the remaining time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from vllm_build import cli
from vllm_build.kernels.build_plan import Plan, PlannedExtension, PlannedKernel
from vllm_build.native import build_progress, unit_estimates
from vllm_build.native.job_count import GIB, Jobs
from vllm_build.native.unit_estimates import UnitEstimate
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TWO = Jobs(2, None, 1, ())
HEAVY = PlannedKernel("heavy", ("csrc/h.cu",), (), (), "heavy", archs=("8.0", "9.0a"))
LIGHT = PlannedKernel(
    "light",
    ("csrc/a.cu", "csrc/a.cc"),
    (),
    (),
    "ordinary",
    archs=("8.0",),
    third_party="engine-kernels",
    third_party_sources=("csrc/b.cu",),
)


def plan(*kernels: PlannedKernel) -> Plan:
    return Plan("cuda", (PlannedExtension("vllm._C", "vllm-kernels", ("csrc/m.cc",), kernels),), ())


def write(root: Path, **seconds: float) -> None:
    units = {
        f"csrc/{name.replace('_', '.')}": {"seconds": value, "peak_mib": 1024, "object_kib": 1}
        for name, value in seconds.items()
    }
    path = root / unit_estimates.TABLE
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"units": {"cuda": units}}), encoding="utf-8")


def test_units_of_a_plan(tmp_path: Path) -> None:
    write(tmp_path, m_cc=1, a_cu=10, a_cc=3, h_cu=100)
    assert [
        (u.unit, u.seconds, u.peak_bytes // GIB, u.heavy, u.measured)
        for u in unit_estimates.units(tmp_path, plan(LIGHT, HEAVY))
    ] == [
        ("csrc/m.cc", 1, 1, False, True),
        ("csrc/a.cu", 10, 1, False, True),
        ("csrc/a.cc", 3, 1, False, True),
        # Without a measurement: the mean of its class.
        ("inputs/engine-kernels/csrc/b.cu", pytest.approx(14 / 3), 1, False, False),
        # For two architectures.
        ("csrc/h.cu", 200, 1, True, True),
    ]


def test_a_tree_without_measurements(tmp_path: Path) -> None:
    found = unit_estimates.estimate(tmp_path, plan(LIGHT), TWO)
    assert found.guessed == len(found.units) == 4


def unit(seconds: float, gib: float = 1, *, heavy: bool = False) -> UnitEstimate:
    return UnitEstimate(f"csrc/{seconds}.cu", seconds, int(gib * GIB), heavy, measured=True)


@pytest.mark.parametrize(
    ("units", "jobs", "seconds"),
    [
        ([], TWO, 0),
        ([unit(5)], TWO, 5),
        ([unit(5), unit(5), unit(5)], TWO, 10),
        # One heavy unit at a time.
        ([unit(5, heavy=True), unit(5, heavy=True)], TWO, 10),
        ([unit(5, heavy=True), unit(5, heavy=True), unit(8)], TWO, 10),
        ([unit(5, heavy=True), unit(5, heavy=True)], Jobs(2, None, 2, ()), 5),
    ],
)
def test_time_with_jobs(units: list[UnitEstimate], jobs: Jobs, seconds: float) -> None:
    assert unit_estimates._wall_seconds(tuple(units), jobs) == seconds


def test_the_peak_is_that_of_the_units_that_may_run_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = (unit(1, 9, heavy=True), unit(1, 7, heavy=True), unit(1, 1), unit(1, 0.5))
    monkeypatch.setattr(unit_estimates, "units", lambda *_: units)
    found = unit_estimates.estimate(tmp_path, plan(), TWO)
    assert found.peak_bytes == 10 * GIB
    assert unit_estimates.estimate(tmp_path, plan(), Jobs(3, None, 2, ())).peak_bytes == 17 * GIB
    assert unit_estimates.summary(found, TWO) == (
        "estimate: 4 units, 4 s of processor time, 2 s with 2 compilers at once, 10.0 GiB at the "
        "peak; results in a compiler cache take none"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")],
)
def test_times_in_words(seconds: float, text: str) -> None:
    assert unit_estimates.spell_time(seconds) == text


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("[]", encoding="utf-8"),
        lambda path: path.write_bytes(b"\xff"),
        lambda path: path.write_text('{"units": {"cuda": {"a": {}}}}', encoding="utf-8"),
        lambda path: path.write_text('{"units": {"cuda": 3}}', encoding="utf-8"),
    ],
)
def test_a_damaged_table(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    write(tmp_path)
    damage(tmp_path / unit_estimates.TABLE)
    with pytest.raises(ConfigurationError, match="not a table of measured units"):
        unit_estimates.read(tmp_path)


def test_the_trees_table_has_the_engines_units(root: Path) -> None:
    known = unit_estimates.read(root)["cuda"]
    assert sum(name.startswith("inputs/engine-kernels/") for name in known) >= 40


def line(name: str) -> str:
    return f"[1/4] Building CUDA object CMakeFiles/_C.k.dir/csrc/{name}.o\n"


def record(path: Path, **seconds: float) -> None:
    with path.open("a", encoding="utf-8") as stream:
        for name, value in seconds.items():
            entry = {
                "unit": f"CMakeFiles/_C.k.dir/csrc/{name[1:]}.cu.o",
                "seconds": value,
                "cpu_seconds": value,
                "peak_bytes": 1,
                "object_bytes": 1,
            }
            stream.write(json.dumps(entry) + "\n")


def test_the_remaining_time(tmp_path: Path) -> None:
    path = tmp_path / "units.jsonl"
    units = (unit(100), unit(200), unit(300), unit(400))
    progress = build_progress.Progress(units, TWO, path)
    assert progress.annotate("-- Configuring\n") == "-- Configuring\n"
    assert progress.annotate(line("other.cu")) == line("other.cu")
    # This one is from a compiler cache, which says nothing about the machine.
    record(path, _100=1)
    assert progress.annotate(line("100.cu")) == line("100.cu").rstrip() + "; 8 min left\n"
    # Half as fast as the machine that was measured: (300 + 400) / 2 jobs, but the last takes 400.
    record(path, _200=400)
    assert progress.annotate(line("200.cu")) == line("200.cu").rstrip() + "; 13 min left\n"
    assert progress.annotate(line("200.cu")) == line("200.cu"), "it was reported"
    progress.annotate(line("400.cu"))
    assert progress.annotate(line("300.cu")) == line("300.cu"), "nothing is left"


def test_heavy_units_wait_for_their_pool(tmp_path: Path) -> None:
    units = (unit(10), unit(100, heavy=True), unit(200, heavy=True))
    progress = build_progress.Progress(units, Jobs(4, None, 1, ()), tmp_path / "none")
    assert progress.left_seconds() == 300


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("VLLM_KERNELS", "engine")
    monkeypatch.setenv("VLLM_KERNEL_SET", "check")
    monkeypatch.setenv("MAX_JOBS", "2")
    arguments = ["plan", "--device=cuda", "--toolkit-version=13.0", "--arch-list=9.0a"]
    assert cli.main([*arguments, "--estimate", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["estimate"]
    assert found["units"] > 50
    assert found["jobs"] == 2
    assert found["cpu_seconds"] > found["wall_seconds"] > 100
    assert cli.main([*arguments, "--estimate"]) == 0
    said = capsys.readouterr()
    assert "2 compilers at once" in " ".join((said.out + said.err).split())
