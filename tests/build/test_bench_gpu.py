# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, cast

import pytest

from vllm_build.kernels import op_table
from vllm_build.util import paths
from vllm_build.util.console import Console
from vllm_build.util.errors import FetchError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kernels.peers import Peer

FOLDER = paths.source_root() / "benchmarks"
MEMBER = "vllm/_C_stable_libtorch.abi3.so"
LIBRARY = bytes(range(256)) * 4096


@pytest.fixture(scope="module")
def kernels() -> Iterator[Any]:
    """The torch-free modules of the benchmark."""
    sys.path.insert(0, str(FOLDER))
    try:
        import kernels.cases
        import kernels.gpu_cases
        import kernels.gpu_machine
        import kernels.official_gpu
        import kernels.peers
        import kernels.remote_wheel
        import kernels.report
        import kernels.session

        yield kernels
    finally:
        sys.path.remove(str(FOLDER))
        for name in [
            name for name in sys.modules if name.split(".")[0] in ("kernels", "bench_gpu")
        ]:
            del sys.modules[name]


# -------------------------------------------------------------------------------------------------------------
# members of a wheel
@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """Megabytes that nobody wants, and a library."""
    path = tmp_path / "vllm-0.33.0-cp38-abi3-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("vllm/before.bin", os.urandom(2 << 20))
        archive.writestr(MEMBER, LIBRARY)
        archive.writestr("vllm/after.bin", os.urandom(2 << 20))
    return path


class Index(BaseHTTPRequestHandler):
    """Serves one file; ``server.manner`` says how."""

    def do_GET(self) -> None:
        server: Any = self.server
        data = server.data
        if server.manner.isdigit():
            self.send_error(int(server.manner))
            return
        span = self.headers.get("Range", "")
        if server.manner == "whole" or not span:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # nobody wants all of it
                self.wfile.write(data)
            return
        first, last = (int(number) for number in span.removeprefix("bytes=").split("-"))
        part = data[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        # After the first request, which asks for one byte.
        self.wfile.write(
            part[: len(part) // 2] if server.manner == "short" and len(part) > 1 else part
        )

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def index(wheel: Path) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    server.data, server.manner = wheel.read_bytes(), "ranges"
    server.url = f"http://127.0.0.1:{server.server_address[1]}/{wheel.name}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def members() -> dict[str, str]:
    return {MEMBER: hashlib.sha256(LIBRARY).hexdigest()}


def test_a_member_costs_its_own_bytes(
    kernels: Any, index: Any, members: dict[str, str], tmp_path: Path
) -> None:
    remote = kernels.remote_wheel
    remote.CHUNK, before = 1 << 16, remote.CHUNK
    try:
        with remote.open_wheel(index.url) as archive:
            remote.extract(archive, members, tmp_path)
            assert archive.fp.raw.received < 1 << 20
            received = archive.fp.raw.received
            remote.extract(archive, members, tmp_path)
            assert archive.fp.raw.received == received, "what is there is not read again"
    finally:
        remote.CHUNK = before
    assert (tmp_path / "_C_stable_libtorch.abi3.so").read_bytes() == LIBRARY


def test_other_bytes_than_pinned(
    kernels: Any, index: Any, members: dict[str, str], tmp_path: Path
) -> None:
    remote = kernels.remote_wheel
    with remote.open_wheel(index.url) as archive:
        with pytest.raises(
            IntegrityError, match=rf"{MEMBER} of the wheel has sha256 {members[MEMBER]}"
        ):
            remote.extract(archive, {MEMBER: "0" * 64}, tmp_path)
        with pytest.raises(IntegrityError, match="vllm/none of the wheel cannot be read"):
            remote.extract(archive, {"vllm/none": "0" * 64}, tmp_path)
    assert not list(tmp_path.glob("*.so"))
    index.data = index.data[:-1000]
    with pytest.raises(IntegrityError, match="no wheel"), remote.open_wheel(index.url):
        pass


@pytest.mark.parametrize(
    ("manner", "words"),
    [("whole", "does not send parts"), ("401", "wants a password"), ("403", "wants a password")],
)
def test_an_index_without_ranges(kernels: Any, index: Any, manner: str, words: str) -> None:
    index.manner = manner
    with (
        pytest.raises(kernels.remote_wheel.NoRangesError, match=words),
        kernels.remote_wheel.open_wheel(index.url),
    ):
        pass


@pytest.mark.parametrize(
    ("manner", "words"),
    [("500", "answers with status 500"), ("short", "bytes, expected|connection .* broke")],
)
def test_an_index_that_fails(kernels: Any, index: Any, manner: str, words: str) -> None:
    index.manner = manner
    with (
        pytest.raises(FetchError, match=words) as found,
        kernels.remote_wheel.open_wheel(index.url),
    ):
        pass
    assert not isinstance(found.value, kernels.remote_wheel.NoRangesError)


def test_an_index_that_is_gone(kernels: Any, index: Any) -> None:
    index.shutdown()
    index.server_close()
    with (
        pytest.raises(FetchError, match="does not answer"),
        kernels.remote_wheel.open_wheel(index.url),
    ):
        pass


def test_the_whole_wheel_where_there_are_no_ranges(
    kernels: Any,
    index: Any,
    wheel: Path,
    members: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    official = kernels.official_gpu
    asked: list[Any] = []

    def download(items: Any, folder: Path, **_: object) -> None:
        asked.extend(items)
        (folder / wheel.name).write_bytes(wheel.read_bytes())

    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(official.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(official, "MEMBERS", {"_C": (MEMBER, members[MEMBER])})
    monkeypatch.setattr(official.remote_wheel, "locate", lambda *_: index.url)
    monkeypatch.setattr(official.pypi, "download", download)
    index.manner = "whole"
    (library,) = official.libraries(frozenset({"_C", "_moe_C"}), Console())
    assert library.read_bytes() == LIBRARY
    assert asked == [(official.NAME, official.VERSION, official.SHA256)]
    index.manner = "500"
    assert official.libraries(frozenset({"_C"}), Console()) == [library], "from the cache"


def test_pip_says_where_the_wheel_is(
    kernels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index on this disk, which pip reads without a server."""
    name = "vllm_bench_sample-1.0-cp38-abi3-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr(
            "vllm_bench_sample-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: vllm-bench-sample\nVersion: 1.0\n",
        )
        archive.writestr(
            "vllm_bench_sample-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\n"
        )
        archive.writestr("vllm_bench_sample-1.0.dist-info/RECORD", "")
        archive.writestr("sample.so", LIBRARY)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    sha256 = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    url = kernels.remote_wheel.locate("vllm-bench-sample==1.0", sha256, "manylinux_2_28_x86_64")
    with kernels.remote_wheel.open_wheel(url) as found:
        assert found.read("sample.so") == LIBRARY
    with pytest.raises(FetchError, match=r"pip finds no vllm-bench-sample==2\.0"):
        kernels.remote_wheel.locate("vllm-bench-sample==2.0", sha256, "manylinux_2_28_x86_64")


# --------------------------------------------------------------------------------------------------------------------------
# cases
def test_every_op_of_a_gpu_is_timed_or_said_not_to_be(kernels: Any) -> None:
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


# -------------------------------------------------------------------------------------------------------------------------
# reports
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


def test_what_is_absent_is_said(kernels: Any, capsys: pytest.CaptureFixture[str]) -> None:
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
    """A child process that says what it is told to."""

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


def test_a_whole_run_is_written_down(
    kernels: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    """As after an error on a GPU, when every later call of a process fails."""
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


# -------------------------------------------------------------------------------------------------------------
# without a GPU
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
    assert (done.returncode, "none is no program" in done.stderr) == (2, True)
    done = bench(tmp_path, "--only", "nonsense")
    assert (done.returncode, "no such op: nonsense" in done.stderr) == (2, True)
