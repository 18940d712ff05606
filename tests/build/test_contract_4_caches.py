# SPDX-License-Identifier: Apache-2.0
"""Build contract, section 4: launchers, generator, CMake and the compilers' environment."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fake_cmake import configuration

from vllm_build.native import cmake, cmake_configure
from vllm_build.native.job_count import Jobs
from vllm_build.settings.build_settings import Settings
from vllm_build.util.errors import ToolchainError
from vllm_build.util.processes import programs

if TYPE_CHECKING:
    from tests.build.conftest import Program


@pytest.mark.parametrize(
    ("installed", "settings", "expected"),
    [
        ((), Settings(), {}),
        (("ccache",), Settings(), dict.fromkeys(("C", "CXX", "CUDA", "HIP"), "ccache")),
        (("sccache", "ccache"), Settings(), dict.fromkeys(("C", "CXX", "CUDA", "HIP"), "sccache")),
        (
            ("sccache", "ccache"),
            Settings(disable_sccache=True),
            dict.fromkeys(("C", "CXX", "CUDA", "HIP"), "ccache"),
        ),
        (
            ("sccache", "ccache"),
            Settings(disable_ccache=True),
            dict.fromkeys(("C", "CXX", "CUDA", "HIP"), "sccache"),
        ),
        (("sccache", "ccache"), Settings(disable_sccache=True, disable_ccache=True), {}),
        (
            ("ccache",),
            Settings(cxx_launcher="distcc"),
            {"C": "ccache", "CXX": "distcc", "CUDA": "ccache", "HIP": "ccache"},
        ),
        (
            (),
            Settings(c_launcher="a", cxx_launcher="b", cuda_launcher="c", hip_launcher="d"),
            {"C": "a", "CXX": "b", "CUDA": "c", "HIP": "d"},
        ),
        (
            ("ccache",),
            Settings(cmake_args=("-DCMAKE_CUDA_COMPILER_LAUNCHER=",)),
            {"C": "ccache", "CXX": "ccache", "HIP": "ccache"},
        ),
        (("ccache",), Settings(disable_ccache=True, cxx_launcher="mine"), {"CXX": "mine"}),
    ],
)
def test_launchers(
    bare: Path,
    tmp_path: Path,
    program: Program,
    installed: tuple[str, ...],
    settings: Settings,
    expected: dict[str, str],
) -> None:
    assert bare.is_dir()
    for name in installed:
        program(tmp_path / "path" / name)
    found = cmake.launchers(settings)
    assert {
        key.removeprefix("CMAKE_").removesuffix("_COMPILER_LAUNCHER"): Path(value).name
        for key, value in found.items()
    } == expected


@pytest.mark.parametrize(
    ("installed", "asked", "expected"),
    [
        (("ninja", "make"), None, "Ninja"),
        (("ninja",), "Ninja", "Ninja"),
        (("make",), None, "Unix Makefiles"),
        (("gmake",), None, "Unix Makefiles"),
        (("ninja",), "Unix Makefiles", "Unix Makefiles"),
        ((), None, None),
        (("make",), "Ninja", None),
    ],
)
def test_generator(
    bare: Path,
    tmp_path: Path,
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
    installed: tuple[str, ...],
    asked: str | None,
    expected: str | None,
) -> None:
    assert bare.is_dir()
    monkeypatch.setattr(cmake.sys, "executable", str(tmp_path / "bin" / "python"))
    for name in installed:
        program(tmp_path / "path" / name)
    if expected is None:
        with pytest.raises(ToolchainError, match="neither ninja nor make"):
            cmake.find_generator(Settings(generator=asked))
        return
    assert cmake.find_generator(Settings(generator=asked)).name == expected


def test_ninja_of_the_environment_comes_first(
    tools: Path, tmp_path: Path, program: Program
) -> None:
    assert cmake.find_generator(Settings()).program == str(tools / "ninja")
    inside = program(tmp_path / "bin" / "ninja")
    assert cmake.find_generator(Settings()).program == str(inside)
    assert programs.find_program("ninja") == str(inside)
    with pytest.raises(ToolchainError, match="nothing-of-that-name was not found"):
        programs.find_program("nothing-of-that-name")


def test_cmake_that_is_too_old_is_passed_over(
    bare: Path, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bare.is_dir()
    monkeypatch.setattr(cmake.sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'one'}:{tmp_path / 'two'}::{tmp_path / 'three'}")
    with pytest.raises(ToolchainError, match=r"^no usable cmake was found\n"):
        cmake.find_cmake(os.environ["PATH"])
    program(tmp_path / "one" / "cmake", "cmake version 3.25.1")
    program(tmp_path / "two" / "cmake", "nonsense")
    with pytest.raises(
        ToolchainError, match=r"one/cmake \(3\.25\), .*two/cmake \(prints no version\)"
    ):
        cmake.find_cmake(os.environ["PATH"])
    new = program(tmp_path / "three" / "cmake", "cmake version 4.4.4")
    assert cmake.find_cmake(os.environ["PATH"]) == str(new)
    (tmp_path / "broken").write_bytes(b"\x7fELF nothing")
    (tmp_path / "broken").chmod(0o755)
    assert cmake.version_of(str(tmp_path / "broken")) is None


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ((), None),
        (("-DX=1",), "1"),
        (("-DX:STRING=a=b",), "a=b"),
        (("-DX=1", "-DX=2"), "2"),
        (("-D", "X=1"), "1"),
        (("-DXY=1",), None),
        (("X=1",), None),
        (("-DX=",), ""),
        (("-D", "-DX=1"), None),
    ],
)
def test_definitions_in_arguments(arguments: tuple[str, ...], value: str | None) -> None:
    assert cmake.definition(arguments, "X") == value


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("-Wl,-rpath,/p/lib -Wl,-rpath-link,/p/lib -L/p/lib", " -Wl,-rpath-link,/p/lib -L/p/lib"),
        ("-Wl,-z,now -Wl,--rpath=/p/lib", "-Wl,-z,now "),
        ("-Wl,-rpath,'$ORIGIN/../../lib' -Wl,-rpath,/p", "-Wl,-rpath,'$ORIGIN/../../lib' "),
        ("-Wl,-O2", "-Wl,-O2"),
    ],
)
def test_run_paths_of_this_machine_are_left_out(
    root: Path, tools: Path, monkeypatch: pytest.MonkeyPatch, flags: str, expected: str
) -> None:
    assert tools.is_dir()
    monkeypatch.setenv("LDFLAGS", flags)
    assert cmake_configure.environment(configuration(root))["LDFLAGS"] == expected


def test_compilers_at_other_paths_share_no_results(
    root: Path, tools: Path, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = cmake_configure.environment(configuration(root))["CCACHE_NAMESPACE"]
    for name in ("c++", "cc"):
        shutil.copy(tools / "c++", program(tmp_path / "elsewhere" / name))
        monkeypatch.setenv({"c++": "CXX", "cc": "CC"}[name], str(tmp_path / "elsewhere" / name))
    there = cmake_configure.environment(configuration(root))["CCACHE_NAMESPACE"]
    assert there != here
    # For ccache, paths below this folder are relative: the compilers are the same ones everywhere.
    monkeypatch.setenv("CCACHE_BASEDIR", str(tmp_path / "elsewhere"))
    assert "CCACHE_NAMESPACE" not in cmake_configure.environment(configuration(root))
    monkeypatch.setenv("CCACHE_NAMESPACE", "mine")
    assert cmake_configure.environment(configuration(root))["CCACHE_NAMESPACE"] == "mine"


def test_the_users_cache_settings_stay(
    root: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tools.is_dir()
    monkeypatch.setenv("CCACHE_BASEDIR", "/mine")
    env = cmake_configure.environment(configuration(root), Jobs(4, 2, 1, ()))
    assert env["CCACHE_BASEDIR"] == "/mine"
    assert env["NVCC_APPEND_FLAGS"] == "--threads=2", "the command lines do not contain it"
    assert "LDFLAGS" not in env
