# SPDX-License-Identifier: Apache-2.0
"""The engine's platform plugin: the installed kernels decide, and every refusal says why."""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vllm._kernels import build_info, engine, loader, pins
from vllm._kernels.engine import compiler, flash_attention, gpu, kernels, sockets

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write the record of kernels for a device."""
    folder = tmp_path / "_build_info"
    folder.mkdir()
    monkeypatch.setattr(build_info, "DIRECTORY", folder)

    def write(device: str, **changes: Any) -> None:
        record = {
            "schema": build_info.SCHEMA,
            "component": "vllm-kernels",
            "version": "1.0",
            "device": device,
            "kernel_digest": "a" * 64,
            "torch_target": "2.11",
            "extensions": [],
            **changes,
        }
        (folder / "vllm-kernels.json").write_text(json.dumps(record), encoding="utf-8")

    return write


@pytest.mark.parametrize("device", ["cpu", "cuda", "rocm"])
def test_the_kernels_choose_the_platform(records: Callable[..., None], device: str) -> None:
    records(device)
    name = engine.platform()
    assert name == engine.PLATFORMS[device]
    module, _, class_name = name.rpartition(".")
    path = Path(engine.__file__).with_name(module.rpartition(".")[2] + ".py")
    assert f"class {class_name}(" in path.read_text(encoding="utf-8")


def test_without_kernels_the_engine_looks_for_itself(records: Callable[..., None]) -> None:
    assert callable(records)
    assert engine.device() is None
    assert engine.platform() is None


def test_a_device_without_a_platform(records: Callable[..., None]) -> None:
    records("xpu")
    assert engine.device() == "xpu"
    assert engine.platform() is None


def test_a_damaged_record_is_an_error(records: Callable[..., None]) -> None:
    records("cpu", kernel_digest=1)
    with pytest.raises(build_info.BuildInfoError, match="kernel_digest"):
        engine.platform()


def test_the_entry_point_names_the_function(root: Path) -> None:
    text = (root / "scripts/vllm_build/wheels/distribution.py").read_text(encoding="utf-8")
    assert '{"vllm.platform_plugins": {"kernels": "vllm._kernels.engine:platform"}}' in text
    assert callable(engine.platform)


def test_kernels_of_another_build_are_refused(
    records: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    records("cpu")
    loaded: list[str] = []
    monkeypatch.setattr(loader, "load", lambda: loaded.append("all"))
    monkeypatch.setattr(pins, "mismatch", lambda *_: "  expected: another digest")
    with pytest.raises(ImportError, match="vllm-kernels is of another build") as caught:
        kernels.load()
    assert "expected: another digest" in str(caught.value)
    assert loaded == []
    monkeypatch.setattr(pins, "mismatch", lambda *_: None)
    kernels.load()
    assert loaded == ["all"]


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_the_compiler_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CXX comes first, then g++, then conda's compiler in the environment."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    assert compiler.find() is None
    assert compiler.use() is None
    conda = program(tmp_path / "prefix" / "bin" / "x86_64-conda-linux-gnu-g++")
    assert compiler.find() == str(conda)
    usual = program(tmp_path / "bin" / "g++")
    assert compiler.find() == str(usual)
    named = program(tmp_path / "bin" / "mine")
    monkeypatch.setenv("CXX", "mine -m64")
    assert compiler.find() == str(named)
    monkeypatch.setenv("CXX", "missing -m64")
    assert compiler.find() is None
    assert compiler.what_is_missing() == " (missing, which CXX names, does not exist)"
    monkeypatch.delenv("CXX")
    assert compiler.what_is_missing() == ""


def test_torch_is_told_where_condas_compiler_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.setenv("CXX", "")
    program(tmp_path / "bin" / "openssl")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    settings: Any = types.ModuleType("torch._inductor.config")
    settings.cpp = types.SimpleNamespace(cxx=(None, "g++"))
    monkeypatch.setitem(sys.modules, settings.__name__, settings)
    conda = program(tmp_path / "prefix" / "bin" / "x86_64-conda-linux-gnu-g++")
    assert compiler.use() == str(conda)
    assert os.environ["CXX"] == str(conda)
    assert settings.cpp.cxx == (None, str(conda))
    monkeypatch.setenv("CXX", "")
    program(tmp_path / "bin" / "g++")
    compiler.use()
    assert os.environ["CXX"] == ""
    monkeypatch.delenv("PATH")
    monkeypatch.setattr(os, "confstr", lambda _: str(tmp_path / "bin"))
    compiler.use()
    assert os.environ["CXX"] == ""
    assert os.environ["PATH"] == os.defpath


def test_paths_of_sockets_are_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import tempfile

    monkeypatch.delenv(sockets.FOLDER, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", "/" + 69 * "t")
    sockets.shorten()
    assert sockets.FOLDER not in os.environ
    monkeypatch.setattr(tempfile, "tempdir", "/" + 70 * "t")
    sockets.shorten()
    assert os.environ[sockets.FOLDER] == "/tmp"  # noqa: S108 - the default
    monkeypatch.setenv(sockets.FOLDER, str(tmp_path))
    sockets.shorten()
    assert os.environ[sockets.FOLDER] == str(tmp_path)


def test_without_openssl_torch_does_not_reuse_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.setenv("CXX", str(program(tmp_path / "bin" / "mine")))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    settings: Any = types.ModuleType("torch._inductor.config")
    settings.cpp_cache_precompile_headers = True
    monkeypatch.setitem(sys.modules, settings.__name__, settings)
    variable = "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS"
    monkeypatch.setenv(variable, "1")
    compiler.use()
    assert settings.cpp_cache_precompile_headers, "the caller has chosen"
    monkeypatch.delenv(variable)
    compiler.use()
    assert not settings.cpp_cache_precompile_headers
    assert os.environ[variable] == "0"
    monkeypatch.delenv(variable)
    settings.cpp_cache_precompile_headers = True
    program(tmp_path / "bin" / "openssl")
    compiler.use()
    assert settings.cpp_cache_precompile_headers
    assert variable not in os.environ


def test_the_import_of_a_library_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "vllm._library_of_upstream"
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.delitem(sys.modules, name)
    gpu.stand_in("_library_of_upstream")
    first = sys.modules[name]
    gpu.stand_in("_library_of_upstream")
    assert sys.modules[name] is first
    before = sys.modules["vllm._kernels"]
    gpu.stand_in("_kernels")
    assert sys.modules["vllm._kernels"] is before


class Base:
    """The part of upstream's platform that the checks call."""

    device_name = "cuda"
    calls: list[object] = []  # noqa: RUF012 - a test's counter

    @classmethod
    def get_device_capability(cls, device_id: int = 0) -> object:
        return (9, device_id)

    @classmethod
    def pre_register_and_update(cls, parser: object = None) -> None:
        cls.calls.append(parser)


class Checked(gpu.GpuChecks, Base):  # type: ignore[misc] # the parser of Base can be any object
    pass


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A torch that sees no GPU."""
    fake = types.ModuleType("torch")
    fake.__version__ = "2.13.0+cpu"  # type: ignore[attr-defined]
    fake.cuda = types.SimpleNamespace(device_count=lambda: 0)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", fake)
    monkeypatch.setattr(gpu.GpuChecks, "_command_line", False)
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda _: "triton")
    monkeypatch.setenv("CC", sys.executable)
    return fake


def test_without_a_gpu_the_engine_does_not_start(torch: types.ModuleType) -> None:
    with pytest.raises(RuntimeError, match="are for cuda") as caught:
        Checked.pre_register_and_update()
    assert "torch 2.13.0+cpu sees no GPU" in str(caught.value)
    assert "\n" not in str(caught.value)
    torch.cuda = types.SimpleNamespace(device_count=lambda: 1)  # type: ignore[attr-defined]
    Checked.pre_register_and_update()


def test_without_triton_or_a_c_compiler_the_engine_does_not_start(
    torch: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.cuda = types.SimpleNamespace(device_count=lambda: 1)  # type: ignore[attr-defined]
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RuntimeError, match=r"Triton, which torch 2\.13\.0\+cpu came without"):
        Checked.pre_register_and_update()
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda _: "triton")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(RuntimeError, match="C compiler, and there is none: conda install gcc_linu"):
        Checked.pre_register_and_update()
    monkeypatch.setenv("CC", "no-such-cc -m64")
    with pytest.raises(RuntimeError, match=r"none \(no-such-cc, which CC names, does not exist\)"):
        Checked.pre_register_and_update()
    # Triton looks for gcc and clang; conda's compiler has a longer name.
    monkeypatch.setenv("CC", "")
    found = program(tmp_path / "bin" / "x86_64-conda-linux-gnu-gcc")
    Checked.pre_register_and_update()
    assert compiler.os.environ["CC"] == str(found)


def test_without_a_gpu_there_is_no_compute_capability(torch: types.ModuleType) -> None:
    assert Checked.get_device_capability(1) is None
    torch.cuda = types.SimpleNamespace(device_count=lambda: 2)  # type: ignore[attr-defined]
    assert Checked.get_device_capability(1) == (9, 1)


@pytest.mark.usefixtures("torch")
def test_the_command_line_is_described_and_then_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["vllm", "bench", "latency"])
    parser = object()
    Checked.pre_register_and_update(parser)  # type: ignore[arg-type]
    assert Base.calls[-1] is parser
    with pytest.raises(SystemExit) as caught:
        Checked.pre_register_and_update()
    assert str(caught.value.code).startswith("error: vllm's kernels here are for cuda")


@pytest.mark.parametrize("words", [["serve", "some/model"], ["serve"]])
def test_a_server_is_refused_before_its_model_is_looked_for(
    torch: types.ModuleType, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["vllm", *words])
    parser: Any = object()
    with pytest.raises(SystemExit, match="error: vllm's kernels here are for cuda"):
        Checked.pre_register_and_update(parser)
    torch.cuda = types.SimpleNamespace(device_count=lambda: 1)  # type: ignore[attr-defined]
    Checked.pre_register_and_update(parser)


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize(
    "words",
    [
        ["serve", "--help"],
        ["serve", "--help=all"],
        ["serve", "some/model", "-h"],
        ["--version"],
        ["collect-env"],
        [],
    ],
)
def test_a_command_that_starts_no_engine_is_not_refused(
    monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["vllm", *words])
    parser: Any = object()
    Checked.pre_register_and_update(parser)
    assert Base.calls[-1] is parser


def flash_attention_of_upstream(
    folder: Path, monkeypatch: pytest.MonkeyPatch, libraries: tuple[str, ...]
) -> types.ModuleType:
    """The part of upstream's package that counts: it cannot be imported without a library."""
    package = folder / f"vllm_flash_attn_with_{len(libraries)}"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from .flash_attn_interface import FA2_AVAILABLE\n"
        "if not FA2_AVAILABLE:\n    raise ImportError('no library')\n",
        encoding="utf-8",
    )
    (package / "flash_attn_interface.py").write_text(
        "try:\n    from . import _vllm_fa2_C\n    FA2_AVAILABLE = True\n"
        "except ImportError:\n    FA2_AVAILABLE = False\n",
        encoding="utf-8",
    )
    for name in libraries:
        (package / f"{name}.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(flash_attention, "_PACKAGE", package.name)
    monkeypatch.setattr(loader, "available", lambda: frozenset(libraries))
    flash_attention.allow_absence()
    return importlib.import_module(package.name)


def test_a_flash_attention_without_a_library_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = flash_attention_of_upstream(tmp_path, monkeypatch, ())
    assert found.FA2_AVAILABLE is False
    assert found.flash_attn_interface.FA2_AVAILABLE is False
    assert "vllm-flash-attn is not installed" in found.flash_attn_interface.FA2_UNAVAILABLE_REASON
    assert f"{found.__name__}._vllm_fa2_C" not in sys.modules


def test_a_flash_attention_with_its_library_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = flash_attention_of_upstream(tmp_path, monkeypatch, ("_vllm_fa2_C",))
    assert found.FA2_AVAILABLE is True
    assert not hasattr(found.flash_attn_interface, "FA2_UNAVAILABLE_REASON")
