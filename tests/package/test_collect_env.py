# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from vllm._kernels import build_info, collect_env, envs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECTIONS = [
    "schema",
    "vllm",
    "engine",
    "platform",
    "components",
    "torch",
    "kernels",
    "python",
    "system",
    "cpu",
    "conda",
    "environment",
]
RUN = "from vllm._kernels import collect_env; collect_env.main(sys.argv[1:])"


@pytest.fixture
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        collect_env, "_probe", lambda: {"torch": {"version": "2.99"}, "kernels": {"ops": []}}
    )


@pytest.mark.usefixtures("no_probe")
def test_document_has_every_section_and_is_json() -> None:
    report = collect_env.collect()
    assert list(report) == SECTIONS
    assert json.loads(json.dumps(report)) == report
    assert report["torch"]["version"] == "2.99"


def test_the_engine_and_its_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "vllm" / "_kernels"
    folder.mkdir(parents=True)
    monkeypatch.setattr(collect_env.vllm, "__file__", str(folder.parent / "__init__.py"))
    monkeypatch.setattr(collect_env.engine, "device", lambda: "cuda")
    assert collect_env._engine() is None
    record = folder / "_engine.json"
    record.write_text('{"version": "9.9", "sha256": "aa"}', encoding="utf-8")
    assert collect_env._engine() == {
        "version": "9.9",
        "sha256": "aa",
        "platform": "vllm._kernels.engine.cuda.KernelsCudaPlatform",
    }
    monkeypatch.setattr(collect_env.engine, "device", lambda: None)
    assert (collect_env._engine() or {})["platform"] is None

    def damaged() -> str:
        raise build_info.BuildInfoError("kernels.json: device is 7")

    monkeypatch.setattr(collect_env.engine, "device", damaged)
    assert (collect_env._engine() or {})["platform"] == {"error": "kernels.json: device is 7"}
    for text in ("[]", "{", ""):
        record.write_text(text, encoding="utf-8")
        assert list(collect_env._engine() or {}) == ["error"]


def test_without_torch(copy: Path) -> None:
    """With -S and -I there are no site-packages, so neither report nor child finds torch."""
    start = f"import sys; sys.path.insert(0, {str(copy)!r})\n"
    done = subprocess.run(
        [sys.executable, "-ISc", start + RUN, "--json"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["torch"] == {
        "installed": None,
        "error": "ModuleNotFoundError: No module named 'torch'",
    }
    assert report["kernels"]["error"].startswith(
        "ImportError: vllm's kernel library _C is not installed."
    )
    assert report["vllm"] == {"version": "1.2.3+test", "path": str(copy / "vllm"), "libraries": []}
    assert report["components"] == []


def test_text(copy: Path, python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    text = python(copy, RUN).stdout
    assert text.startswith("vllm:\n  version: 1.2.3+test\n")
    assert "schema" not in text
    assert max(map(len, text.split("  flags:")[1].split("conda")[0].splitlines())) < 120


def test_kernels_are_reported(
    library: Path, package: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    report = json.loads(python(package.parent, RUN, "--json").stdout)
    assert report["kernels"]["loaded"] == {"_C": str(library)}
    assert "_C::rms_norm" in report["kernels"]["ops"]
    assert "_C" in report["vllm"]["libraries"]
    if report["platform"].get("device_type") == "cpu":
        assert report["kernels"]["cpu_isa"] in envs.CPU_ISAS[platform.machine()]
    for component in report["components"]:
        assert set(component["files"].values()) == {"as built"}


def test_a_malformed_isa_is_part_of_the_report(
    copy_with_library: Path,
    library: Path,
    python: Callable[..., subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_CPU_ISA", "mmx")
    report = json.loads(python(copy_with_library, RUN, "--json").stdout)
    assert report["kernels"]["loaded"] == {"_C": str(copy_with_library / "vllm" / library.name)}
    assert report["kernels"]["cpu_isa"].startswith("VLLM_CPU_ISA is 'mmx', expected one of ")


def test_components_are_checked_against_their_files(
    tmp_path: Path, write_record: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "vllm"
    monkeypatch.setattr(build_info, "DIRECTORY", package / "_build_info")
    write_record(package)
    (package / "_C.abi3.so").write_bytes(b"x")
    write_record(package, component="vllm-flashmla", schema=3)
    damaged, sound = collect_env._components()
    assert damaged["component"] == "vllm-flashmla"
    assert "schema is 3" in damaged["error"]
    assert (sound["kernel_digest"], sound["files"]) == (
        "0123456789ab",
        {"vllm/_C.abi3.so": "as built"},
    )
    (package / "_C.abi3.so").write_bytes(b"y")
    found = hashlib.sha256(b"y").hexdigest()
    assert collect_env._components()[1]["files"]["vllm/_C.abi3.so"].startswith(
        f"has sha256 {found}, "
    )


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import os; os.abort()", "by signal 6 ("),
        ("import sys; sys.exit('no such luck')", "with status 1: no such luck"),
        ("", "with status 0: no message"),
        ("import os; os._exit(3)", "with status 3: no message"),
    ],
)
def test_a_probe_that_dies_is_reported(
    monkeypatch: pytest.MonkeyPatch, program: str, message: str
) -> None:
    real = subprocess.run

    def other_program(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return real([command[0], "-c", program], **options)

    monkeypatch.setattr(subprocess, "run", other_program)
    report = collect_env.collect()
    assert message in report["torch"]["error"]
    assert report["kernels"] == {"error": report["torch"]["error"]}


def test_a_probe_that_hangs_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], timeout: float, **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    assert collect_env._probe() == {
        "error": "importing torch and loading the kernels did not end within 300 s"
    }


def test_conda_packages(tmp_path: Path) -> None:
    meta = tmp_path / "conda-meta"
    meta.mkdir()
    for name in (
        "vllm",
        "vllm-kernels",
        "libtorch",
        "pytorch",
        "python",
        "python_abi",
        "libgomp",
        "tzdata",
        "pip",
    ):
        (meta / f"{name}-1-0.json").write_text(
            json.dumps({"name": name, "version": "1.0", "build": "h0_0", "channel": "c"})
        )
    (meta / "broken-1-0.json").write_text("{")
    (meta / "odd-1-0.json").write_text("[]")
    (meta / "history").write_text("")
    found = collect_env._conda(tmp_path)
    assert found.pop("broken-1-0") == found.pop("odd-1-0") == "unreadable record"
    assert found == dict.fromkeys(
        sorted(["vllm", "vllm-kernels", "libtorch", "pytorch", "python", "python_abi", "libgomp"]),
        "1.0 h0_0",
    )
    assert collect_env._conda(tmp_path / "nowhere") == {}


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    monkeypatch.setenv("VLLM_API_KEY", "hunter2")
    monkeypatch.setenv("VLLM_STORE", "https://me:hunter2@example.org/x")
    monkeypatch.setenv("VLLM_PROXY", "me:hunter2@example.org:8080")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setenv("HOME_PAGE", "no")
    assert collect_env._variables() == {
        "OMP_NUM_THREADS": "4",
        "VLLM_API_KEY": "(set, not shown)",
        "VLLM_PROXY": "(login)@example.org:8080",
        "VLLM_STORE": "https://(login)@example.org/x",
        "VLLM_TARGET_DEVICE": "cpu",
    }


def test_a_bad_environment_is_part_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "toaster")
    assert "toaster" in collect_env._platform()["error"]


def test_lines() -> None:
    document = {
        "a": 1,
        "b": {"c": None, "d": "x\ny"},
        "e": [{"f": 1}, {"f": 2}],
        "g": [],
        "h": [1, 2],
        "i": ["one", "two"],
    }
    assert collect_env.render(document).splitlines() == [
        "a: 1",
        "b:",
        "  c: none",
        "  d: x",
        "    y",
        "e:",
        "  -",
        "    f: 1",
        "  -",
        "    f: 2",
        "g: none",
        "h:",
        "  - 1",
        "  - 2",
        "i:",
        "  one two",
    ]


def test_unknown_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        collect_env.main(["--yaml"])
    assert "--yaml" in capsys.readouterr().err
