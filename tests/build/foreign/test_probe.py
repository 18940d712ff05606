# SPDX-License-Identifier: Apache-2.0
"""The child process that loads the libraries of an official wheel."""

from __future__ import annotations

import io
import json
import os
import runpy
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from foreign_files import ENVIRONMENT, compiled
from foreign_scene import SCHEMA

from vllm_build.reuse.foreign import audit_table, load_checks


@pytest.mark.parametrize(
    ("theirs", "keys", "verdict"),
    [
        (SCHEMA, ["CPU"], None),
        (SCHEMA, ["CompositeImplicitAutograd"], None),
        ("_C::f(Tensor(a0!) result, Tensor x, float alpha=1.) -> ()", ["CPU"], None),
        ("_C::f(Tensor! out, Tensor input, float alpha=1., bool? more=None) -> ()", ["CPU"], None),
        (SCHEMA, ["CUDA"], "an implementation for CUDA"),
        (SCHEMA, [], "an implementation for nothing"),
        ("_C::f(Tensor! out, Tensor input, float alpha=2.) -> ()", ["CPU"], "alpha=2."),
        ("_C::f(Tensor! out, Tensor input, float alpha=1., bool more) -> ()", ["CPU"], "bool more"),
        ("_C::f(Tensor out, Tensor input, float alpha=1.) -> ()", ["CPU"], "(Tensor out"),
        ("_C::f(Tensor! out, Tensor input, int alpha=1.) -> ()", ["CPU"], "int alpha"),
        ("_C::f(Tensor! out, Tensor input, *, float alpha=1.) -> ()", ["CPU"], "*"),
        ("_C::f(Tensor! out, Tensor input) -> ()", ["CPU"], "input) ->"),
        ("_C::f(Tensor! out, Tensor input, float alpha) -> ()", ["CPU"], "float alpha)"),
        ("_C::f(Tensor! out, Tensor input, float alpha=1.) -> Tensor", ["CPU"], "-> Tensor"),
    ],
)
def test_schemas(
    has_torch: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    theirs: str,
    keys: list[str],
    verdict: str | None,
) -> None:
    monkeypatch.setenv("FAKE_OPS", json.dumps({"_C::f": [theirs, keys]}))
    library = tmp_path / "lib.so"
    library.write_bytes(compiled(tmp_path / "cc"))
    answer = probed(
        has_torch,
        monkeypatch,
        {"libraries": [asked(library)], "schemas": [SCHEMA, "_C::g.x() -> int"], "stand_ins": []},
    )
    result = audit_table.Audit()
    load_checks._check_ops(result, {"CPU": (SCHEMA, "_C::g.x() -> int")}, answer)
    assert result.unusable.pop("_C::g.x") == "the wheel has no such op"
    assert ("_C::f" in result.unusable) == (verdict is not None)
    assert verdict is None or verdict in result.unusable["_C::f"]


def asked(
    path: Path, *functions: str, needed: tuple[str, ...] = (), symbols: tuple[str, ...] = ()
) -> dict[str, Any]:
    return {
        "path": str(path),
        "needed": list(needed),
        "symbols": list(symbols),
        "functions": list(functions),
    }


def probed(site: Path, monkeypatch: pytest.MonkeyPatch, request: dict[str, Any]) -> dict[str, Any]:
    """Run the probe in this process, so that its coverage is measured."""
    monkeypatch.syspath_prepend(str(site))
    file = site.parent / "answer.json"
    asked_for = {"compiler": os.environ.get("CC") or "cc", **request, "answer": str(file)}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(asked_for)))
    try:
        runpy.run_module("vllm_build.reuse.foreign.foreign_probe", run_name="__main__")
    finally:
        sys.modules.pop("torch", None)
    answer: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return answer


#: The libraries that stand-ins may replace.
DRIVERS = ["libfakecuda.so.1", "libfakecuda.so.2", "libfaketorch_cuda.so"]


def test_stand_ins_let_schemas_be_read(
    has_torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", ENVIRONMENT["PATH"])
    driver = tmp_path / "driver.so"
    driver.write_bytes(
        compiled(tmp_path / "driver", "void cuInit(void) {}", "-Wl,-soname,libfakecuda.so.1")
    )
    source = "void cuInit(void);\nvoid (*keep)(void) = cuInit;\n"
    library = tmp_path / "_C.so"
    library.write_bytes(compiled(tmp_path / "cc", source, str(driver)))
    monkeypatch.setenv("FAKE_OPS", json.dumps({"_C::f": [SCHEMA, ["CUDA"]]}))
    request: dict[str, Any] = {
        "libraries": [
            asked(
                library,
                needed=("libfakecuda.so.1", "libfaketorch_cuda.so"),
                symbols=("cuInit", "malloc"),
            )
        ],
        "schemas": [SCHEMA],
        "stand_ins": [],
    }
    answer = probed(has_torch, monkeypatch, request)
    assert answer["missing"] == ["libfakecuda.so.1", "libfaketorch_cuda.so"]
    assert answer["unresolved"] == {str(library): ["cuInit"]}
    assert "libfakecuda.so.1" in answer["failed"][str(library)]
    answer = probed(has_torch, monkeypatch, {**request, "stand_ins": DRIVERS})
    assert answer["failed"] == {}
    assert answer["ops"][SCHEMA]["compatible"]
    monkeypatch.setenv("CC", "/nowhere/cc")
    monkeypatch.setenv("PATH", "/nowhere")
    request["libraries"][0]["needed"] = ["libfakecuda.so.2"]
    with pytest.raises(OSError, match="no C compiler"):
        probed(has_torch, monkeypatch, {**request, "stand_ins": DRIVERS})


def test_a_compiler_that_fails(
    has_torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho no such thing >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    library = tmp_path / "_C.so"
    library.write_bytes(compiled(tmp_path / "o"))
    with pytest.raises(OSError, match="no such thing"):
        probed(
            has_torch,
            monkeypatch,
            {
                "libraries": [asked(library, needed=("libnone.so.1",))],
                "schemas": [],
                "stand_ins": ["libnone.so.1"],
            },
        )


def test_a_python_module(has_torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the interpreter, and a library that is not a module."""
    (path,) = [
        Path(sysconfig.get_config_var("DESTSHARED")) / name
        for name in ("_json" + sysconfig.get_config_var("EXT_SUFFIX"),)
    ]
    if not path.is_file():
        pytest.skip("this interpreter has _json built in")
    library = tmp_path / "other.so"
    library.write_bytes(compiled(tmp_path / "cc"))
    request = {
        "libraries": [asked(path, "scanstring", "c_fly"), asked(library, "f")],
        "schemas": [],
        "stand_ins": [],
    }
    answer = probed(has_torch, monkeypatch, request)
    assert answer["functions"] == {str(path): ["c_fly"]}
    assert list(answer["failed"]) == [str(library)]
