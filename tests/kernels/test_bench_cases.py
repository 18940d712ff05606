# SPDX-License-Identifier: Apache-2.0
"""The cases of ``benchmarks/bench_gpu.py`` with small sizes.

The calls fit the ops' schemas, and the ops compute the same as the PyTorch code of the case.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from kernels import child, devices, fit, gpu_cases  # noqa: E402 - found by the line above
from kernels.cases import Case, select  # noqa: E402
from kernels.workload import Workload, op  # noqa: E402

#: As in conftest.py.
DEVICE = os.environ.get("KERNEL_TEST_DEVICE", "cpu")
CASES = list(
    dict.fromkeys(gpu_cases.tiny(case) for case in select([], quick=False, ops=gpu_cases.OPS))
)
SCHEMAS = """
import sys
sys.path[:0] = [{benchmarks!r}, {scripts!r}]
from pathlib import Path
import torch
from vllm_build.kernels import op_table
libraries = {{}}
for kernel, keys in op_table.load(Path({root!r})).items():
    for schema in keys.get("CUDA", ()):
        namespace, _, text = schema.partition("::")
        libraries.setdefault(namespace, torch.library.Library(namespace, "FRAGMENT")).define(text)
from kernels import child, gpu_cases
from kernels.cases import select
from kernels.fit import fit
cases = select([], quick=False, ops=gpu_cases.OPS)
for case in dict.fromkeys(gpu_cases.tiny(case) for case in cases):
    try:
        assert fit("ours", child.build(case)) == {{"fits": "the schema"}}
    except AttributeError as error:
        assert case.optional and "has no attribute" in str(error), (case, error)
    except (RuntimeError, ValueError) as error:
        raise SystemExit(f"{{case}}: {{error}}")
    else:
        print(case.op)
"""


def named(case: Case) -> str:
    return f"{case.op}-{case.label}".replace(" ", "-")


@pytest.fixture(scope="module")
def peer(ops: Any) -> child.Peer:
    assert ops is not None
    return child.Peer("ours", devices.DEVICES["cuda" if DEVICE == "cuda" else "cpu"](), [])


# The emulation has none of the optional kernels.
@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.optional or DEVICE == "cuda"], ids=named
)
def test_ops_compute_the_same_as_pytorch(peer: child.Peer, case: Case) -> None:
    workload = child.build(case)
    try:
        peer.check(case, workload, workload.bind())
    except AttributeError as error:
        if not case.optional:
            raise
        pytest.skip(f"the installed kernels do not include it: {error}")


@pytest.mark.parametrize("case", [case for case in CASES if case.optional], ids=named)
def test_the_pytorch_of_an_op_that_a_package_may_be_without(case: Case) -> None:
    workload = child.build(case)
    for result, out in zip(
        workload.torch(*workload.args), workload.outputs, strict=bool(workload.outputs)
    ):
        assert (result.shape, result.dtype) == (out.shape, out.dtype)
        assert result.isfinite().all()


def test_the_arguments_fit_the_listed_schemas() -> None:
    script = SCHEMAS.format(
        benchmarks=str(ROOT / "benchmarks"), scripts=str(ROOT / "scripts"), root=str(ROOT)
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-500:]
    assert {"rms_norm", "moe_sum", "_vllm_fa2_C.varlen_fwd"} <= set(done.stdout.split())


def test_a_wrong_argument_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "test_bench_cases"
    library = torch.library.Library(name, "FRAGMENT")
    library.define("take(Tensor x, int count) -> Tensor")
    monkeypatch.setattr(fit, "NAMESPACES", (name,))

    def call(*arguments: Any) -> dict[str, Any]:
        return fit.fit(
            "ours", Workload(lambda: lambda: op("take", name)(*arguments), lambda: (), ())
        )

    assert call(torch.ones(1), 2) == {"fits": "the schema"}
    with pytest.raises(RuntimeError, match=r"(?i)expected a value of type 'int'"):
        call(torch.ones(1), "2")
    with pytest.raises(RuntimeError, match="missing value for argument 'count'"):
        call(torch.ones(1))
    with pytest.raises(ValueError, match="does not use an op"):
        fit.fit("ours", Workload(lambda: lambda: torch.ones(1), lambda: (), ()))


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests the message without a GPU")
def test_a_process_without_a_gpu_reports_it() -> None:
    command = [sys.executable, "-m", "kernels.child", "eager", "cuda"]
    done = subprocess.run(
        command, cwd=ROOT / "benchmarks", input="", capture_output=True, text=True, check=False
    )
    assert json.loads(done.stdout)["failed"].startswith(f"RuntimeError: torch {torch.__version__} ")
    assert done.returncode == 0
