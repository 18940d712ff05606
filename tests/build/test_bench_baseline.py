# SPDX-License-Identifier: Apache-2.0
"""Baselines of the benchmark of CPU kernels, and its demand for a quiet machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from bench_modules import bench_modules  # noqa: F401 - a fixture

from vllm_build.util.errors import ConfigurationError, ResourceError

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = {"cpu": "AMD EPYC 9654 (R)", "features": ["avx2", "fma"], "cores": 2, "load": 0.1}
OURS = [100.0, 100.0, 100.0, 100.0, 100.0]


def result(kernels: Any, official: list[float], op: str = "rms_norm") -> Any:
    case = kernels.cases.Case(op, "bfloat16", {"tokens": 16, "hidden": 4096})
    return kernels.report.Result(case, {}, {"ours": OURS, "official": official})


@pytest.fixture
def steady(kernels: Any) -> Any:
    return result(kernels, [200.0, 200.0, 200.0, 202.0, 198.0])


def test_the_scatter_is_half_of_the_middle_half(kernels: Any, steady: Any) -> None:
    assert steady.scatter("official") == 0
    assert result(kernels, [180.0, 190.0, 200.0, 210.0, 220.0]).scatter(
        "official"
    ) == pytest.approx(0.05)
    assert steady.scatter("ours") is None
    assert steady.scatter("eager") is None
    assert result(kernels, [180.0]).scatter("official") is None


def test_names_tell_cpus_and_sets_apart(kernels: Any) -> None:
    name_of = kernels.baseline.name_of
    assert name_of(MACHINE) == "amd-epyc-9654-r-avx2-fma-2-cores.json"
    others = [
        {**MACHINE, "features": ["avx2"]},
        {**MACHINE, "cores": 4},
        {**MACHINE, "cpu": "Intel"},
    ]
    assert len({name_of(MACHINE), name_of(MACHINE, "avx2"), *map(name_of, others)}) == 5


def test_a_baseline_is_read_as_it_was_written(kernels: Any, steady: Any, tmp_path: Path) -> None:
    path = tmp_path / "baseline" / "x.json"
    kernels.baseline.write(path, kernels.baseline.document([steady], MACHINE))
    assert kernels.baseline.read(path) == {
        "rms_norm tokens=16 hidden=4096 bfloat16": {"official": (2.0, 0.0)}
    }
    assert json.loads(path.read_text())["machine"] == {
        "cpu": "AMD EPYC 9654 (R)",
        "features": ["avx2", "fma"],
        "cores": 2,
    }


def test_only_losses_beyond_the_noise_are_named(kernels: Any, steady: Any) -> None:
    losses = kernels.baseline.losses
    before = {kernels.baseline.key(steady.case): {"official": (2.0, 0.01), "eager": (9.0, 0.01)}}
    assert losses([steady], before) == []
    assert losses([result(kernels, [186.0] * 5)], before) == []
    (loss,) = losses([result(kernels, [180.0] * 5)], before)
    assert str(loss) == (
        "rms_norm tokens 16 hidden 4k bf16: 1.80x of official, before 2.00x (-10%)"
    )
    # The same loss, with rounds that do not agree.
    assert losses([result(kernels, [160.0, 165.0, 180.0, 190.0, 200.0])], before) == []
    assert losses([result(kernels, [100.0] * 5, op="unknown")], before) == []
    worse = [result(kernels, [180.0] * 5), result(kernels, [90.0] * 5)]
    assert [loss.now for loss in losses(worse, before)] == [0.9, 1.8]


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 2}', '{"schema": 1, "cases": {"a": 1}}'])
def test_what_is_no_baseline_is_refused(kernels: Any, tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"x\.json is not a baseline"):
        kernels.baseline.read(path)


def test_a_cpu_without_a_baseline_is_said(kernels: Any, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"(?s)no baseline for this CPU.*other\.json"):
        kernels.baseline.read(tmp_path / "x.json")


def test_the_baselines_of_the_tree_can_be_read(kernels: Any) -> None:
    known = {kernels.baseline.key(case) for case in kernels.cases.select([], quick=False)}
    for path in kernels.baseline.FOLDER.glob("*.json"):
        assert set(kernels.baseline.read(path)) <= known, path.name


def test_other_work_is_the_time_that_is_not_idle(
    kernels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    # user nice system idle iowait irq softirq steal guest guest_nice
    stat.write_text("cpu  100 0 50 800 40 0 10 0 7 7\ncpu0 1 2 3\n")

    def later(_: float) -> None:
        stat.write_text("cpu  120 0 55 860 50 0 15 0 9 9\ncpu0 1 2 3\n")

    monkeypatch.setattr(kernels.quiet.time, "sleep", later)
    assert kernels.quiet.busy_share(1, stat) == pytest.approx(0.3)


def test_a_busy_machine_is_refused(kernels: Any, steady: Any) -> None:
    kernels.quiet.require_quiet(0.05)
    with pytest.raises(ResourceError, match="other programs use 30%"):
        kernels.quiet.require_quiet(0.3)
    unsteady = result(kernels, [150.0, 170.0, 200.0, 230.0, 250.0])
    kernels.quiet.require_steady([steady, steady, unsteady])
    with pytest.raises(ResourceError, match="the rounds differ by 15%"):
        kernels.quiet.require_steady([steady, unsteady, unsteady])


def test_marks_name_the_options(kernels: Any) -> None:
    assert kernels.pages.marks("bench_kernels", "--isa avx2") == (
        (
            "<!-- bench-kernels --isa avx2: written by benchmarks/bench_kernels.py --isa avx2 "
            "--docs -->\n"
        ),
        "<!-- end of bench-kernels --isa avx2 -->\n",
    )
