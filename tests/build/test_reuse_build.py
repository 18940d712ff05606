# SPDX-License-Identifier: Apache-2.0
"""The build command with VLLM_USE_PRECOMPILED, from settings to files."""

from __future__ import annotations

import json
import sysconfig
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from fake_cmake import calls
from reuse_files import (
    OUTPUT,
    RECORD,
    Build,
    elf,
    snapshot,
)
from reuse_server import serving
from setuptools import Distribution

from vllm_build import backend
from vllm_build.digests import tree_digests
from vllm_build.native import highway_lookup
from vllm_build.reuse import preparation
from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.net.transport import Transport
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import store_publish
from vllm_build.settings.build_settings import Settings
from vllm_build.target.device import Target
from vllm_build.util import paths
from vllm_build.util.errors import ConfigurationError
from vllm_build.wheels import cmake_ext

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "user-cache"))
    context = Context(Cache(tmp_path / "cache"), Transport(timeout=0.5, attempts=2, pause=0.01))
    with context.cache.in_use():
        yield context


def test_wanted_outputs_of_a_device(root: Path) -> None:
    (wanted,) = preparation.find_wanted(
        root, preparation.make_plan(root, Settings(), Target("cpu", "why"))
    )
    assert wanted.output == OUTPUT
    assert wanted.libraries == ("vllm/_C.abi3.so",)
    assert wanted.kernel_digest == tree_digests.kernel_digest(root, OUTPUT)
    assert wanted.digest not in ("", wanted.kernel_digest)
    with pytest.raises(ConfigurationError, match="the toolkit release for cuda is unknown"):
        preparation.make_plan(root, Settings(), Target("cuda", "why"))


@pytest.fixture
def command(
    root: Path, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> cmake_ext.precompiled_build_ext:
    assert tools.is_dir()
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    monkeypatch.setenv("VLLM_USE_PRECOMPILED", "1")
    monkeypatch.setenv("MAX_JOBS", "1")
    extension = cmake_ext.CMakeExtension("vllm._C", str(root))
    command = cmake_ext.precompiled_build_ext(
        Distribution({"name": "vllm", "version": "1.0", "ext_modules": [extension]})
    )
    command.build_lib = str(tmp_path / "lib")
    command.ensure_finalized()
    return command


@pytest.fixture
def real(root: Path) -> Build:
    """A build with the digest of this tree."""
    (wanted,) = preparation.find_wanted(
        root, preparation.make_plan(root, Settings(), Target("cpu", "why"))
    )
    return Build(
        {name: elf() for name in wanted.libraries},
        {"build_digest": wanted.digest, "kernel_digest": wanted.kernel_digest},
    )


def test_the_command_reuses(
    command: cmake_ext.precompiled_build_ext,
    real: Build,
    tools: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving() as server:
        server.folder = real.wheel(tmp_path / "wheels").parent
        monkeypatch.setenv(
            "VLLM_PRECOMPILED_WHEEL_LOCATION", f"{server.url}/vllm-0.1.0-py3-none-any.whl"
        )
        command.run()
    assert calls(tools) == []
    said = capsys.readouterr().err
    assert "fetched 0.0 MB in" in said
    assert "vllm-kernels: reuse: http://" in said
    outputs = [name.removeprefix(str(tmp_path / "lib") + "/") for name in command.get_outputs()]
    assert outputs == ["vllm/_C.abi3.so", RECORD]
    assert (tmp_path / "lib" / "vllm/_C.abi3.so").read_bytes() == elf()
    tree = tmp_path / "tree"
    monkeypatch.setattr(paths, "source_root", lambda: tree)
    command.inplace = True
    command.copy_extensions_to_source()
    assert (tree / RECORD).read_bytes() == real.record()


def test_the_command_refuses_and_changes_nothing(
    command: cmake_ext.precompiled_build_ext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_PRECOMPILED_WHEEL_LOCATION", str(Build().wheel(tmp_path)))
    Build().unpacked(tmp_path / "lib")
    before = snapshot(tmp_path / "lib")
    with pytest.raises(RefusedError, match="digest"):
        command.run()
    assert snapshot(tmp_path / "lib") == before


def test_the_command_compiles_what_is_missing(
    command: cmake_ext.precompiled_build_ext,
    tools: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VLLM_PRECOMPILED_WHEEL_LOCATION", str(Build().wheel(tmp_path)))
    monkeypatch.setenv("VLLM_PRECOMPILED_PARTIAL", "1")
    # The locked Highway, because another one would make the build private.
    monkeypatch.setattr(highway_lookup, "find", lambda *_: {"HIGHWAY_SRC_DIR": "locked"})
    command.run()
    assert [call["args"][0] for call in calls(tools)] == ["-S", "--build", "--install"]
    assert command.left == (OUTPUT,)
    assert "vllm-kernels: compile: " in capfd.readouterr().err
    record = json.loads((tmp_path / "lib" / RECORD).read_text(encoding="utf-8"))
    assert record["platform"] == sysconfig.get_platform()
    assert record["toolkit"] is None
    # The compiled kernels can be published and reused.
    folder = tmp_path / "store"
    assert list(store_publish.publish(tmp_path / "lib", folder, Context()).values()) == [True]
    monkeypatch.delenv("VLLM_PRECOMPILED_WHEEL_LOCATION")
    monkeypatch.setenv("VLLM_PRECOMPILED_STORES", str(folder))
    again = cmake_ext.precompiled_build_ext(command.distribution)
    again.build_lib = str(tmp_path / "again")
    again.ensure_finalized()
    again.run()
    assert calls(tools) == []
    assert (tmp_path / "again" / "vllm/_C.abi3.so").read_bytes() == (
        tmp_path / "lib" / "vllm/_C.abi3.so"
    ).read_bytes()


def test_outputs_by_name(
    root: Path, tools: Path, real: Build, tmp_path: Path, ctx: Context
) -> None:
    assert tools.is_dir()
    settings = Settings(target_device="cpu", precompiled_location=str(real.wheel(tmp_path)))
    with preparation.prepare(root, settings, ctx, [OUTPUT]) as reuse:
        assert sorted(reuse.fetch()) == ["vllm/_C.abi3.so", RECORD]
        assert (reuse.compiled, reuse.compiled_files) == ((), ())
    with (
        pytest.raises(ConfigurationError, match="has no output vllm-flashmla"),
        preparation.prepare(root, settings, ctx, ["vllm-flashmla"]),
    ):
        pass
    with preparation.prepare(root, replace(settings, target_device="empty"), ctx) as reuse:
        assert reuse.decisions == ()


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, []),
        ({"VLLM_PRECOMPILED_STORES": "/x"}, ["zstandard>=0.22"]),
        ({"VLLM_PRECOMPILED_WHEEL_LOCATION": "/x.whl"}, []),
        ({"VLLM_PRECOMPILED_WHEEL_LOCATION": "/x.conda"}, ["zstandard>=0.22"]),
        (
            {"VLLM_PRECOMPILED_STORES": "/x", "VLLM_PRECOMPILED_KEY": "/x.pem"},
            ["zstandard>=0.22", "securesystemslib[crypto]>=1.0"],
        ),
        ({"VLLM_PRECOMPILED_WHEEL_LOCATION": "/x.whl", "VLLM_PRECOMPILED_KEY": "/x.pem"}, []),
        ({"VLLM_PRECOMPILED_PARTIAL": "1"}, ["torch>=2.11", "cmake>=3.26", "ninja"]),
    ],
)
def test_build_requirements(
    bare: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    names: list[str],
) -> None:
    assert bare.is_dir()
    monkeypatch.setattr("vllm_build.native.cmake.sys.executable", str(tmp_path / "bin" / "python"))
    for name, value in {
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_USE_PRECOMPILED": "1",
        **environ,
    }.items():
        monkeypatch.setenv(name, value)
    assert [
        requirement.partition(";")[0] for requirement in backend._requirements(lambda _: [], None)
    ] == names
