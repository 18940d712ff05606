# SPDX-License-Identifier: Apache-2.0
"""The benchmark of engines, without an engine: cases, clocks, ratios, records, tables."""

from __future__ import annotations

import importlib
import os
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from bench_modules import (
    engine_modules,  # noqa: F401 - a fixture
)

from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = {"threads": "2", "versions": {"torch": "2.13.0"}}
CASE = {"model": "0.5b", "dtype": "bfloat16", "mode": "eager", "batch": 8, "prompt": 16}


def phase(tokens: int, wall: float, cpu: float) -> dict[str, Any]:
    return {"tokens": tokens, "wall": wall, "cpu": cpu, "machine": cpu}


def sample(prefill: float, decode: float, memory: int = 1 << 30) -> dict[str, Any]:
    """A sample with processor times twice the seconds."""
    return {
        "prefill": phase(128, prefill, 2 * prefill),
        "decode": phase(504, decode, 2 * decode),
        "memory": memory,
        "others": 0.25,
    }


@pytest.fixture
def result(engines: Any) -> Any:
    samples = {
        "ours": [sample(1.0, 2.0), sample(2.0, 4.0), sample(1.0, 2.0)],
        "official": [sample(3.0, 1.0), sample(4.0, 2.0), sample(2.0, 4.0)],
        "transformers": [sample(1.0, 8.0, 2 << 30)] * 3,
    }
    return engines.record.Result(engines.cases.Case(**CASE), samples)


def start(engines: Any) -> Any:
    taken = {"start": {"wall": 10.0, "cpu": 20.0}, "memory": 1 << 30, "processes": 2}
    longer = {"start": {"wall": 15.0, "cpu": 40.0}, "memory": 3 << 30, "processes": 3}
    case = engines.cases.Case("0.5b", "bfloat16", "eager")
    return engines.record.Result(case, {"ours": [taken], "official": [longer]})


def test_models_have_the_sizes_of_those_that_they_are_like(engines: Any) -> None:
    models = engines.cases.MODELS
    assert round(models["0.5b"].parameters / 1e9, 2) == 0.49
    assert round(models["1.1b"].parameters / 1e9, 1) == 1.1
    assert models["0.5b"].head == 64
    # 24 layers, two heads of 64 elements, keys and values, two bytes.
    assert models["0.5b"].cache(10, 2) == 10 * 24 * 2 * 64 * 2 * 2
    asked = engines.models.arguments("1.1b")
    assert asked["tied"] is False
    assert asked["sizes"]["context"] >= max(engines.cases.PROMPTS) + 64


def test_the_maker_takes_the_sizes(engines: Any) -> None:
    text = (engines.models.MAKER / "small_model.py").read_text(encoding="utf-8")
    for size in engines.models.arguments("0.5b")["sizes"]:
        assert re.search(rf"^    {size}: int", text, re.MULTILINE)


def test_selection(engines: Any) -> None:
    every = engines.cases.select(quick=False)
    assert len(every) == len({case.key for case in every}) == 4 * (1 + 9)
    quick = engines.cases.select(quick=True)
    assert [case.label for case in quick] == [
        "0.5b bf16 start",
        "0.5b bf16 batch 1 prompt 16",
        "0.5b bf16 batch 8 prompt 16",
        "0.5b bf16 batch 1 prompt 512",
        "0.5b bf16 batch 8 prompt 512",
    ]
    named = engines.cases.select(quick=True, batches=[32], modes=["compiled"])
    assert [case.key for case in named if not case.starts] == [
        "0.5b bfloat16 compiled batch 32 prompt 16",
        "0.5b bfloat16 compiled batch 32 prompt 512",
    ]


def test_cases_that_do_not_fit_into_memory_are_left_out(engines: Any) -> None:
    group = engines.cases.select(quick=True, batches=[1, 32], prompts=[16, 2048])
    case = group[-1]
    assert case.cache_gib(64) == 1
    one = engines.cases.memory_gib([case], ["ours"], 64)
    assert 3 < one < 4
    assert engines.cases.memory_gib([case], ["ours", "transformers"], 64) == 2 * one + 1
    assert engines.cases.fitting(group, ["ours"], 64, one) == (group, [])
    assert engines.cases.fitting(group, ["ours"], 64, one - 0.1) == ([], group)
    large = engines.cases.select(quick=False, models=["1.1b"], dtypes=["float32"], batches=[1, 32])
    fits, others = engines.cases.fitting(large, ["ours"], 64, 8.0)
    assert [case.key for case in others] == ["1.1b float32 eager batch 32 prompt 2048"]
    assert len(fits) == len(large) - 1


def stat(pid: int, name: str, session: int, ticks: tuple[int, int, int, int], begin: int) -> str:
    rest = ["S", 1, session, session, 0, -1, 0, 0, 0, 0, 0, *ticks, 20, 0, 1, 0, begin, 1, 2]
    return f"{pid} ({name}) {' '.join(map(str, rest))}\n"


def test_processor_time_is_that_of_a_session_with_its_finished_children(
    engines: Any, tmp_path: Path
) -> None:
    usage, tick = engines.peer.usage, os.sysconf("SC_CLK_TCK")
    lines = [
        stat(7, "python (x) ) S", 7, (100, 50, 30, 20), 5 * tick),
        stat(8, "worker", 7, (10, 0, 0, 0), 6 * tick),
        stat(9, "other", 9, (9999, 0, 0, 0), 1),
    ]
    for line in lines:
        folder = tmp_path / line.split()[0]
        folder.mkdir()
        (folder / "stat").write_text(line)
        (folder / "status").write_text(f"Name:\tx\nVmHWM:\t  {folder.name}00 kB\nVmRSS:\t1 kB\n")
        (folder / "clear_refs").touch()
    (tmp_path / "10").mkdir()  # a process that ends while it is read
    (tmp_path / "meminfo").touch()
    (tmp_path / "stat").write_text("cpu  1 2 3 1000 500 4 5 6 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    assert usage.cpu(7, tmp_path) == pytest.approx(210 / tick)
    assert [process.pid for process in usage.processes(9, tmp_path)] == [9]
    assert usage.peak(7, tmp_path) == (700 + 800) * 1024
    usage.forget_peaks(7, tmp_path)
    assert [(tmp_path / name / "clear_refs").read_text() for name in "789"] == ["5", "5", ""]
    assert usage.machine(tmp_path) == pytest.approx(21 / tick)
    assert usage.age(7, tmp_path) == pytest.approx(usage.age(9, tmp_path) - 5, abs=1.0)


def test_this_process_has_used_processor_time_and_memory(engines: Any) -> None:
    session = os.getsid(0)
    assert engines.peer.usage.cpu(session) > 0
    assert engines.peer.usage.peak(session) > 1 << 20
    assert engines.peer.usage.machine() > 0
    assert engines.peer.usage.age(session) > 0


class Clock:
    """Each reading is a second, two processor seconds, and three of the machine later."""

    def __init__(self, engines: Any) -> None:
        self.count, self.kind = -1.0, engines.peer.phases.Reading

    def __call__(self) -> Any:
        self.count += 1
        return self.kind(self.count, 2 * self.count, 3 * self.count)


def test_decoding_is_measured_while_the_batch_is_full(engines: Any) -> None:
    phases = engines.peer.phases.Phases(4, 100, Clock(engines))
    for counts in ([0, 1], [1, 2], [2, 3]):
        phases.feed(counts)
        assert not phases.done
    for counts in ([3, 4], [4, 4]):
        phases.feed(counts)
    assert phases.done
    assert phases.document() == {
        "prefill": {"tokens": 100, "wall": 1.0, "cpu": 2.0, "machine": 3.0},
        "decode": {"tokens": 4, "wall": 1.0, "cpu": 2.0, "machine": 3.0},  # from 1 + 2 to 3 + 4
    }


def test_without_a_full_batch_there_is_no_decoding(engines: Any) -> None:
    phases = engines.peer.phases.Phases(2, 100, Clock(engines))
    with pytest.raises(RuntimeError, match="generated nothing"):
        phases.document()
    phases.feed([0, 2])
    phases.feed([1, 2])
    assert phases.document()["decode"] is None
    assert phases.document()["prefill"]["tokens"] == 100


def test_prompts_depend_on_nothing_but_the_seed(engines: Any) -> None:
    prompts = engines.peer.child.prompts
    assert prompts(1, 2, 3, 1000) == prompts(1, 2, 3, 1000) != prompts(2, 2, 3, 1000)
    assert [len(prompt) for prompt in prompts(1, 2, 3, 1000)] == [3, 3]
    assert min(min(prompt) for prompt in prompts(0, 8, 100, 8)) == 5


def test_a_ratio_is_the_median_over_the_rounds(result: Any) -> None:
    assert result.ratio("official", "prefill") == 2.0  # of 3, 2 and 2
    assert result.ratio("official", "decode") == 0.5  # of 0.5, 0.5 and 2
    assert result.ratio("official", "decode_cpu") == 0.5
    assert result.ratio("transformers", "memory") == 2.0
    assert result.ratio("transformers", "start") is None
    assert result.ratio("nobody", "decode") is None
    assert result.rate("ours", "prefill") == 128.0
    assert result.rate("ours", "decode") == 252.0
    assert result.others() == 0.25


def test_a_ratio_is_of_tokens_when_the_engines_decode_different_numbers(
    engines: Any, result: Any
) -> None:
    result.samples["official"] = [
        {**sample(1.0, 2.0), "decode": phase(252, 2.0, 4.0)} for _ in range(3)
    ]
    assert result.ratio("official", "decode") == 2.0  # of 2, 1 and 2
    result.samples["official"][0]["decode"] = None
    assert result.ratio("official", "decode") == 1.5
    assert engines.record.cost({"decode": None}, "decode") is None


def test_a_record_continues_and_does_not_mix_runs(
    engines: Any, result: Any, tmp_path: Path
) -> None:
    path, peers = tmp_path / "folder" / "engine.json", ["ours", "official"]
    record = engines.record.Record(path, IDENTITY, fresh=False)
    assert not record.resumed
    record.about["machine"] = {"cpu": "x"}
    record.add(result)
    again = engines.record.Record(path, IDENTITY, fresh=False)
    assert again.resumed
    assert again.results[result.case.key] == result
    assert again.has(result.case, peers, 3)
    assert not again.has(result.case, peers, 4)
    assert not again.has(result.case, [*peers, "another"], 3)
    assert not again.has(start(engines).case, peers, 1)
    again.add(start(engines))
    assert len(engines.record.Record(path, IDENTITY, fresh=False).results) == 2
    assert not engines.record.Record(path, {"threads": "1"}, fresh=True).resumed
    with pytest.raises(ConfigurationError, match=r"results of another run \(threads: 2;") as error:
        engines.record.Record(path, {**IDENTITY, "threads": "1", "versions": {}}, fresh=False)
    assert "--fresh" in str(error.value.remedy)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ConfigurationError, match="is not a record of this benchmark"):
        engines.record.Record(path, IDENTITY, fresh=False)


def test_a_failure_is_tried_again_and_what_does_not_fit_is_not(engines: Any, result: Any) -> None:
    del result.samples["official"]
    result.findings["official"] = ("failed", "RuntimeError: x")
    assert not result.complete(["ours", "official"], 3)
    result.findings["official"] = ("skipped", "too large")
    assert result.complete(["ours", "official"], 3)
    assert engines.report.problems([result]) == []
    assert engines.report.skipped([result, result]) == [
        "not run: 0.5b bf16 batch 8 prompt 16: too large"
    ]


def test_tables(engines: Any, result: Any) -> None:
    report, peers = engines.report, ["ours", "official", "transformers"]
    begin = start(engines)
    lines = [*report.header(peers).splitlines(), report.line(result, peers)]
    assert lines[1].split() == [
        *("prefill", "decode", "GiB"),
        *("prefill", "decode", "CPU", "p.", "CPU", "d.", "mem.") * 2,
        *("other", "work"),
    ]
    assert lines[2].split()[5:] == [
        *("16", "128", "252", "1.00"),
        *("2.00x", "0.50x", "2.00x", "0.50x", "1.00x"),
        *("1.00x", "4.00x", "1.00x", "4.00x", "2.00x"),
        "25%",
    ]
    assert report.line(begin, peers).split()[3:] == [
        *("10", "s", "20", "s", "1.00", "1.50x", "2.00x", "3.00x")
    ]
    markdown = report.summary([begin, result]).splitlines()
    assert len({line.count("|") for line in markdown}) == 1
    assert "| 10 s, 20 CPU s | 15 s, 40 CPU s | 1.50 (2.00) | - | - |" in markdown[2]
    assert "| 128 / 252 | 42.7 / 252 | 2.00 (2.00) / 0.50 (0.50) |" in markdown[3]
    assert (
        "official wheel, decode: 0.50x (geometric mean of 1 cases), 1 below 1.0x, the smallest "
        "0.50x: 0.5b bf16 batch 8 prompt 16"
    ) in report.totals([begin, result])


def test_failures_are_shown(engines: Any, result: Any) -> None:
    report, peers = engines.report, ["ours", "official"]
    result.findings, result.samples["official"] = {"official": ("failed", "no memory")}, []
    assert report.line(result, peers).split()[-2:] == ["failed", "25%"]
    assert report.problems([result]) == []
    assert report.problems([result], "official") == ["0.5b bf16 batch 8 prompt 16: no memory"]
    result.findings, result.samples = {"ours": ("failed", "a traceback")}, {}
    assert report.line(result, peers).endswith("failed: a traceback")
    assert report.problems([result]) == ["0.5b bf16 batch 8 prompt 16: a traceback"]
    assert report.summary([result]).count("\n") == 1


def test_the_plot_has_a_dot_for_each_ratio(engines: Any, result: Any) -> None:
    rows = engines.report.plot_rows([start(engines), result])
    assert rows["decode, bfloat16, batch 8"] == {"official": [0.5], "transformers": [4.0]}
    assert rows["start, processor time, bfloat16"] == {"official": [2.0]}
    drawing = importlib.import_module("kernels.plot").draw(
        rows, engines.report.NAMES, "a < b", "c & d"
    )
    circles = ET.fromstring(drawing).iter("{http://www.w3.org/2000/svg}circle")  # noqa: S314 - our own text
    assert len(list(circles)) == 2 + sum(
        len(dots) for row in rows.values() for dots in row.values()
    )
