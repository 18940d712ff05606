# SPDX-License-Identifier: Apache-2.0
"""The check that libraries register the ops of their sources."""

from __future__ import annotations

import io
import json
import os
import runpy
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from plan_scene import cpu_plan

from vllm_build.checks import op_check
from vllm_build.kernels import op_table
from vllm_build.target import torch_flavour
from vllm_build.util.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


REFERENCE = "_C::rms_norm(Tensor! result, Tensor input) -> ()"


def answer(**registered: list[Any]) -> dict[str, Any]:
    return {
        "registered": {f"_C::{name}": value for name, value in registered.items()},
        "expected": {REFERENCE: "_C::rms_norm(as torch prints)"},
    }


def test_an_op_that_nothing_implements_is_defined() -> None:
    expected = {op_table.NO_KEY: (REFERENCE,)}
    registered = {"rms_norm": ["_C::rms_norm(as torch prints)", []]}
    assert op_check.differences(expected, answer(**registered)) == []
    assert op_check.differences(expected, answer()) == ["_C::rms_norm is not registered"]


@pytest.mark.parametrize(
    ("registered", "said"),
    [
        ({"rms_norm": ["_C::rms_norm(as torch prints)", ["CPU"]]}, []),
        ({}, ["_C::rms_norm is not registered"]),
        (
            {"rms_norm": ["_C::rms_norm(otherwise)", ["CPU"]]},
            [
                (
                    "_C::rms_norm is registered as _C::rms_norm(otherwise), but defined as "
                    "_C::rms_norm(as "
                    "torch prints)"
                )
            ],
        ),
        (
            {"rms_norm": ["_C::rms_norm(as torch prints)", []]},
            ["_C::rms_norm has no implementation for CPU, only for nothing"],
        ),
        (
            {
                "rms_norm": ["_C::rms_norm(as torch prints)", ["CPU"]],
                "more": ["_C::more()", ["CPU"]],
            },
            ["_C::more is registered but unknown"],
        ),
    ],
)
def test_differences(registered: dict[str, list[Any]], said: list[str]) -> None:
    assert op_check.differences({"CPU": (REFERENCE,)}, answer(**registered)) == said


TORCH = """
import types
ops, keys = {}, {}
def get_schema(base, overload):
    return ops[f"{base}.{overload}" if overload else base]
_C = types.SimpleNamespace(
    _dispatch_get_all_op_names=lambda: ["aten::add", *ops],
    _dispatch_has_kernel_for_dispatch_key=lambda name, key: key == keys.get(name, "CPU"),
    _get_schema=get_schema,
    parse_schema=lambda text: text,
)
def load_library(path):
    with open(path) as file:
        exec(file.read())
class Ops:
    load_library = staticmethod(load_library)
_register, ops_ = ops, Ops
"""


@pytest.fixture
def fake_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bare: Path) -> Path:
    """A small torch whose 'libraries' are Python code that registers ops."""
    site = tmp_path / "fake" / "site-packages"
    (site / "torch").mkdir(parents=True)
    text = TORCH + (
        "\nregistry = ops\nops = Ops\n_C._dispatch_get_all_op_names = lambda: ['aten::add', "
        "*registry]\n"
    )
    text += (
        "_C._get_schema = lambda base, overload: registry[f'{base}.{overload}' if overload "
        "else base]\n"
    )
    (site / "torch" / "__init__.py").write_text(text, encoding="utf-8")
    (site / "torch" / "version.py").write_text(
        "__version__ = '2.11.0'\ncuda = None\n", encoding="utf-8"
    )
    assert bare.is_dir()
    monkeypatch.setattr(torch_flavour, "_sites", lambda _: [site])
    return site


def library(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "_C.abi3.so"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def expected(root: Path) -> Mapping[str, tuple[str, ...]]:
    return op_table.of_plan(op_table.load(root), cpu_plan(root))


def registering(root: Path, *, leave_out: str = "nothing") -> str:
    listed = [(key, schema) for key, schemas in expected(root).items() for schema in schemas]
    schemas = {schema.partition("(")[0]: schema for _, schema in listed if leave_out not in schema}
    keys = {schema.partition("(")[0]: key for key, schema in listed}
    return f"registry.update({schemas!r}); keys.update({keys!r})"


def test_a_library_that_registers_all(root: Path, fake_torch: Path, tmp_path: Path) -> None:
    assert op_check.torch_path(os.environ) == str(fake_torch)
    path = library(tmp_path, registering(root))
    listed = sum(map(len, expected(root).values()))
    assert (
        op_check.require(expected(root), [path], os.environ)
        == f"{listed} ops registered as defined"
    )


def test_a_library_that_forgets_one(root: Path, fake_torch: Path, tmp_path: Path) -> None:
    assert fake_torch.is_dir()
    path = library(tmp_path, registering(root, leave_out="silu_and_mul"))
    with pytest.raises(BuildError, match="_C::silu_and_mul is not registered"):
        op_check.require(expected(root), [path], os.environ)


@pytest.mark.parametrize(
    "text", ["raise OSError('undefined symbol: _ZN2at')", "import os; os.abort()"]
)
def test_a_library_that_does_not_load(
    root: Path, fake_torch: Path, tmp_path: Path, text: str
) -> None:
    assert fake_torch.is_dir()
    with pytest.raises(BuildError, match="do not load"):
        op_check.require(expected(root), [library(tmp_path, text)], os.environ)


def test_a_driver_that_a_build_machine_lacks(root: Path, fake_torch: Path, tmp_path: Path) -> None:
    assert fake_torch.is_dir()
    path = library(
        tmp_path,
        "raise OSError('libcuda.so.1: cannot open shared object file: No such file or directory')",
    )
    assert (
        op_check.require(expected(root), [path], os.environ)
        == "ops not compared: libcuda.so.1: cannot open shared object file"
    )


def test_without_torch_the_report_says_so(root: Path, bare: Path, tmp_path: Path) -> None:
    assert "torch" not in sys.modules
    assert bare.is_dir()
    if op_check.torch_path(os.environ) is not None:
        pytest.skip("the tests' own environment has torch")
    assert "no importable torch" in op_check.require(expected(root), [tmp_path], os.environ)


def test_the_probe_itself(
    fake_torch: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Run the probe as a program, but in this process, so that coverage sees its lines."""
    monkeypatch.syspath_prepend(str(fake_torch))
    registers = """
        registry['_C::rms_norm'] = 'as torch prints'
        registry['_C::cpu_isa.x'] = 'isa'
        keys['_C::cpu_isa.x'] = 'CompositeExplicitAutograd'
        """
    path = library(tmp_path, registers)
    request = {"libraries": [str(path)], "schemas": [REFERENCE]}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(request)))
    try:
        runpy.run_module("vllm_build.checks.op_probe", run_name="__main__")
    finally:
        sys.modules.pop("torch", None)
    assert json.loads(capsys.readouterr().out) == {
        "registered": {
            "_C::cpu_isa.x": ["isa", ["CompositeExplicitAutograd"]],
            "_C::rms_norm": ["as torch prints", ["CPU"]],
        },
        "expected": {REFERENCE: REFERENCE},
    }


def test_a_torch_that_is_importable_is_used_as_it_is(
    fake_torch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(fake_torch))
    monkeypatch.setenv("PYTHONPATH", "/of/the/caller")
    assert op_check.torch_path(os.environ) == "/of/the/caller"
