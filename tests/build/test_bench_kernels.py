# SPDX-License-Identifier: Apache-2.0
"""The benchmark of CPU kernels: cases, limits, reports and the plot."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from bench_modules import bench_modules  # noqa: F401 - a fixture

from vllm_build.util import paths

OTHERS = {"official": [200.0, 150.0, 400.0], "eager": [50.0, 60.0, 40.0]}


@pytest.fixture
def result(kernels: Any) -> Any:
    case = kernels.cases.Case("rms_norm", "bfloat16", {"tokens": 2048, "hidden": 4096})
    facts = {"reads": 1_000_000, "writes": 1_000_000, "flops": 0.0, "cold": True}
    times = {"ours": [100.0, 100.0, 200.0], **OTHERS}
    return kernels.report.Result(
        case, facts, times, {name: min(values) for name, values in times.items()}
    )


def test_a_ratio_is_the_median_over_the_rounds(result: Any) -> None:
    assert result.ratio("official") == 2.0
    assert result.ratio("eager") == 0.5
    assert result.ratio("compile") is None


def test_the_limit_is_memory_or_arithmetic_whichever_takes_longer(kernels: Any) -> None:
    limits = kernels.machine.Limits(read=20e9, copy=8e9, streaming_copy=10e9, flops=100e9)
    assert limits.shortest(1000, 1000, 0) == (
        pytest.approx(200.0),
        "GB/s",
    )  # a copy that bypasses the caches
    assert limits.shortest(1000, 0, 0) == (pytest.approx(50.0), "GB/s")  # only reading
    assert limits.shortest(3000, 1000, 0) == (pytest.approx(300.0), "GB/s")
    slow_reads = kernels.machine.Limits(read=20e9, copy=8e9, streaming_copy=50e9, flops=100e9)
    assert slow_reads.shortest(1000, 0, 0) == (pytest.approx(50.0), "GB/s")
    assert slow_reads.shortest(1000, 1000, 0) == (
        pytest.approx(50.0),
        "GB/s",
    )  # writing takes no additional time
    assert limits.shortest(1000, 1000, 1e5) == (pytest.approx(1000.0), "GFLOP/s")


def test_the_share_of_the_limit_is_of_the_shortest_sample(kernels: Any, result: Any) -> None:
    limits = kernels.machine.Limits(read=20e12, copy=10e12, streaming_copy=40e12, flops=1e12)
    assert result.limit(limits) == (pytest.approx(20_000.0), pytest.approx(0.5), "GB/s")
    result.facts["cold"] = False
    assert result.limit(limits) is None


def test_faults_of_ours_are_problems_and_faults_of_others_are_oddities(
    kernels: Any, result: Any
) -> None:
    assert kernels.report.problems([result]) == []
    result.findings = {
        "ours": ("different", "3 elements"),
        "official": ("failed", "RuntimeError"),
        "compile": ("missing", ""),
    }
    assert kernels.report.problems([result, result]) == [
        "rms_norm: different: 3 elements (2 cases)"
    ]
    assert kernels.report.oddities([result]) == [
        "official, rms_norm: failed: RuntimeError (1 cases)"
    ]


def test_selection(kernels: Any) -> None:
    every = kernels.cases.select([], quick=False)
    assert len(set(every)) == len(every)
    quick = kernels.cases.select([], quick=True)
    assert {case.op for case in quick} == {case.op for case in every}
    assert len(quick) < len(every) / 4
    assert {case.op for case in kernels.cases.select(["moe_sum"], quick=False)} == {"moe_sum"}
    with pytest.raises(ValueError, match=r"no such op: nonsense; known ops: .*rms_norm"):
        kernels.cases.select(["nonsense"], quick=False)


def test_ops_of_the_engine_are_timed_or_not_for_a_reason(kernels: Any) -> None:
    timed = {op.name for op in kernels.cases.OPS}
    sources = ("memory", "packed_weight", "rejection", "slot_mapping")
    texts = [
        (paths.source_root() / "csrc" / "bindings" / f"{name}.cc").read_text() for name in sources
    ]
    defined = {name for text in texts for name in re.findall(r'm\.impl\(\s*"(\w+)"', text)}
    assert len(defined) == 8
    assert defined == (timed & defined) | set(kernels.cases.NOT_TIMED)


def test_documents(kernels: Any, result: Any) -> None:
    limits = kernels.machine.Limits(read=20e12, copy=10e12, streaming_copy=40e12, flops=1e12)
    document = json.loads(json.dumps(result.document(limits)))
    assert document["ratio"] == {"official": 2.0, "eager": 0.5}
    assert document["shape"] == {"tokens": 2048, "hidden": 4096}
    assert (
        "| rms_norm | 1 | 2.00 (2.00) | 0.50 (0.50) | - | 2e+04 GB/s (50%) |"
        in kernels.report.summary([result], limits)
    )
    drawing = ET.fromstring(kernels.plot.svg([result], "a < b"))  # noqa: S314 - our own text
    circles = drawing.iter("{http://www.w3.org/2000/svg}circle")
    assert len(list(circles)) == 3 + 2  # the legend, and one dot a peer
