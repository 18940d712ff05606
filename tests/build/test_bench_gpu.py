# SPDX-License-Identifier: Apache-2.0
"""The benchmark of GPU kernels, without a GPU: cases, reports and runs of scripted processes."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, cast

import pytest
from bench_modules import (
    FOLDER,
    bench_modules,  # noqa: F401 - a fixture
)

from vllm_build.kernels import op_table
from vllm_build.util import paths

if TYPE_CHECKING:
    from pathlib import Path

    from kernels.peers import Peer


def test_every_gpu_op_is_timed_or_listed_as_untimed(kernels: Any) -> None:
    table = op_table.load(paths.source_root())
    listed = {
        schema.partition("(")[0] for keys in table.values() for schema in keys.get("CUDA", ())
    }
    timed = {op.name.rpartition(".")[2] for op in kernels.gpu_cases.OPS}
    untimed = {name for name in listed if name.rpartition("::")[2] not in timed}
    reasons = kernels.gpu_cases.NOT_TIMED
    assert not {
        name for name in untimed if name not in reasons and name.partition("::")[0] not in reasons
    }
    names = {name.rpartition("::")[2] for name in listed}
    assert all(
        op.optional for op in kernels.gpu_cases.OPS if op.name.rpartition(".")[2] not in names
    )


def test_small_cases_are_few_and_small(kernels: Any) -> None:
    every = kernels.cases.select([], quick=False, ops=kernels.gpu_cases.OPS)
    small = {kernels.gpu_cases.tiny(case) for case in every}
    assert {case.op for case in small} == {case.op for case in every}
    assert max(size for case in small for size in case.shape.values()) < 1000
    quick = kernels.cases.select([], quick=True, ops=kernels.gpu_cases.OPS)
    assert {(case.op, case.variant) for case in quick} == {
        (case.op, case.variant) for case in every
    }
    assert len(quick) < len(every) / 3
    with pytest.raises(ValueError, match="no such op: onednn_mm"):
        kernels.cases.select(["onednn_mm"], quick=True, ops=kernels.gpu_cases.OPS)


def limits(kernels: Any) -> Any:
    return kernels.gpu_machine.GpuLimits(copy=2e12, flops={"bfloat16": 500e12, "int8": 1000e12})


def test_the_limit_is_the_copy_or_the_product_of_the_dtype(kernels: Any) -> None:
    found = limits(kernels)
    assert found.shortest(1_000_000, 1_000_000, 0.0, "bfloat16") == (pytest.approx(1000.0), "GB/s")
    assert found.shortest(1000, 1000, 1e9, "bfloat16") == (pytest.approx(2000.0), "TFLOP/s")
    assert found.shortest(1000, 1000, 1e9, "int8") == (pytest.approx(1000.0), "TFLOP/s")
    assert found.shortest(2_000_000, 0, 1e9, "float8_e4m3fn") == (pytest.approx(1000.0), "GB/s")


def result(kernels: Any, op: str = "rms_norm", **times: list[float]) -> Any:
    case = kernels.cases.Case(op, "bfloat16", {"tokens": 2048}, optional=op.startswith("_vllm"))
    facts = {
        "reads": 1_000_000,
        "writes": 1_000_000,
        "flops": 0.0,
        "arithmetic": "bfloat16",
        "cold": True,
    }
    found = kernels.report.Result(
        case, facts, times, {name: min(values) for name, values in times.items()}
    )
    found.spread = {name: [0.01, 0.1] for name in times}
    return found


def test_a_row_has_ratios_rates_and_the_spread(kernels: Any) -> None:
    row = kernels.report.line(
        result(kernels, ours=[2000.0, 2000.0], official=[3000.0, 3000.0]), limits(kernels)
    )
    assert row.split() == [
        "tokens",
        "2048",
        "bf16",
        "2",
        "µs",
        "±5%",
        "1.50x",
        "1000.0",
        "GB/s",
        "50%",
    ]
    product = result(kernels, ours=[4000.0])
    product.facts["flops"] = 1e9
    assert kernels.report.line(product, limits(kernels)).split()[-3:] == ["250.0", "TFLOP/s", "50%"]
    document = json.loads(json.dumps(product.document(limits(kernels))))
    assert document["rate"] == {"value": 250.0, "unit": "TFLOP/s", "share_of_limit": 0.5}
    assert document["spread"] == {"ours": 0.1}


def test_absent_ops_are_reported(kernels: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        result(kernels, "_vllm_fa3_C.fwd"),
        result(kernels, "gelu_tanh", ours=[1000.0]),
        result(kernels, "rms_norm"),
    ]
    found[0].findings = {"ours": ("missing", ""), "official": ("failed", "RuntimeError: no kernel")}
    found[1].findings = {"official": ("missing", "")}
    found[2].findings = {"ours": ("missing", "")}
    assert "absent" in kernels.report.line(found[0], limits(kernels))
    assert "absent" in kernels.report.line(found[1], limits(kernels))
    assert kernels.session.conclude(found, []) == ["rms_norm: missing (1 cases)"]
    said = capsys.readouterr().out
    assert "absent from ours: _vllm_fa3_C.fwd\n" in said
    assert "absent from official: gelu_tanh\n" in said
    assert "official, _vllm_fa3_C.fwd: failed: RuntimeError: no kernel (1 cases)\n" in said


class Scripted:
    """A child process with given answers."""

    def __init__(self, name: str, answers: list[dict[str, Any]]) -> None:
        self.name, self.answers, self.facts = name, answers, {"torch": "2.11"}

    def prepare(self, _: Any) -> dict[str, Any]:
        return self.answers.pop(0)

    def ask(self, _: Any) -> dict[str, Any]:
        return self.answers.pop(0)


def test_a_run_with_limits_and_turns(kernels: Any, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {
        "checksum": "1",
        "reads": 10**6,
        "writes": 10**6,
        "flops": 0.0,
        "arithmetic": "bfloat16",
        "cold": True,
    }
    measured = {"copy": 2e12, "flops": {"bfloat16": 5e14}, "state": {}}
    time, late = (
        {"ns": 2000.0, "best": 2000.0, "spread": 0.0},
        {"ns": 4000.0, "best": 4000.0, "spread": 0.0},
    )
    ours = Scripted("ours", [measured, facts, time, time, {**measured, "copy": 1e12}])
    official = Scripted("official", [{**facts, "host_bound": True}, late, late])
    machine = kernels.gpu_machine.GpuMachine(ours)
    cases = [kernels.cases.Case("rms_norm", "bfloat16", {"tokens": 1})]
    (found,) = kernels.session.run(cases, [ours, official], (), machine, rounds=2, seconds=0.0)
    assert found.ratio("official") == 2.0
    assert machine.limits.copy == 2e12
    row = capsys.readouterr().out.splitlines()[-1]
    assert (
        " ".join(row.split())
        == "tokens 1 bf16 2 µs 2.00x 1000.0 GB/s 50% waits for the host: official"
    )
    assert machine.line() == "this card: copying 2000 GB/s; products in TFLOP/s: bfloat16 500"
    assert machine.clocks() == "clocks are unknown: nvidia-smi is missing"
    machine.states = [{"clocks.sm": "1980 MHz", "temperature.gpu": "60", "power.draw": "500 W"}]
    assert "1980 MHz at 60 °C, 500 W" in machine.clocks()


def test_a_run_is_saved(kernels: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import bench_gpu

    facts = {
        "checksum": "1",
        "reads": 10**6,
        "writes": 10**6,
        "flops": 0.0,
        "arithmetic": "bfloat16",
        "cold": True,
    }
    state = {"clocks.sm": "1980 MHz", "temperature.gpu": "60", "power.draw": "500 W"}
    measured = {"copy": 2e12, "flops": {"bfloat16": 5e14}, "state": state}
    time = {"ns": 2000.0, "best": 2000.0, "spread": 0.0}
    ours = Scripted(
        "ours",
        [measured, facts, time, {"missing": True}, {"different": "3 elements differ"}, measured],
    )
    ours.facts["gpu"] = "a card"
    chosen = [
        kernels.cases.Case(op, "bfloat16", {"tokens": 1}, optional=op == "_flashmla_C.x")
        for op in ("a", "_flashmla_C.x", "b")
    ]
    options = argparse.Namespace(
        rounds=1, quick=False, only=[], seconds=0.0, results=tmp_path / "gpu.json"
    )
    assert bench_gpu.time_ops(options, chosen, cast("list[Peer]", [ours])) == [
        "b: different: 3 elements differ (1 cases)"
    ]
    document = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert document["limits"] == {"copy": 2e12, "flops": {"bfloat16": 5e14}}
    assert (document["states"], document["peers"]["ours"]["gpu"]) == ([state, state], "a card")
    assert [case["op"] for case in document["cases"]] == ["a", "_flashmla_C.x", "b"]
    summary = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert summary.startswith("a card, this card: copying 2000 GB/s")
    assert "| a | 1 | - | - | - | 1e+03 GB/s (50%) |" in summary
    said = capsys.readouterr().out
    assert "absent from ours: _flashmla_C.x\n" in said
    assert "OURS: b: different: 3 elements differ (1 cases)\n" in said


def test_a_process_that_is_broken_is_replaced(
    kernels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a GPU error, all later calls of a process fail."""
    script = (
        'import sys\nprint("{}", flush=True)\nfor line in sys.stdin:\n'
        '    print(\'{"failed": "illegal", "restart": true}\', flush=True)\n'
    )
    package = tmp_path / "kernels"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "child.py").write_text(script)
    monkeypatch.setattr(kernels.peers, "FOLDER", tmp_path)
    peer = kernels.peers.Peer(
        "ours", kernels.peers.Runner(sys.executable, os.environ, conda=False), device="cuda"
    )
    peer.start()
    try:
        for _ in range(2):
            assert peer.ask({"do": "limits"}) == {"failed": "illegal"}
            assert peer._process is None
    finally:
        peer.stop()


def bench(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(tmp_path), str(paths.source_root() / "scripts"))),
    }
    command = [sys.executable, str(FOLDER / "bench_gpu.py"), "--peers", "eager", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_a_machine_without_a_gpu_is_told_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n"
    )
    done = bench(tmp_path)
    assert done.returncode == 4
    assert f"{sys.executable} has no torch" in done.stderr
    assert "expected: torch for CUDA 13" in done.stderr
    assert "Traceback" not in done.stderr
    done = bench(tmp_path, "--python", str(tmp_path / "none"))
    assert (done.returncode, "none is not a program" in done.stderr) == (2, True)
    done = bench(tmp_path, "--only", "nonsense")
    assert (done.returncode, "no such op: nonsense" in done.stderr) == (2, True)
