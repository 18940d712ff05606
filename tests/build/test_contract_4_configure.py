# SPDX-License-Identifier: Apache-2.0
"""Build contract, section 4: CMake's arguments, and when CMake runs again.

A program that records its arguments imitates CMake; tests/build/pip uses the real one.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_cmake import calls, configuration, defined
from packaging.version import Version

from vllm_build.native import cmake_configure, highway_lookup, toolkit_variables
from vllm_build.settings.build_settings import Settings
from vllm_build.sources import third_party
from vllm_build.target.device import Target
from vllm_build.target.toolkits.toolkit_search import Toolkit
from vllm_build.util.errors import BuildError, IntegrityError

if TYPE_CHECKING:
    from tests.build.conftest import Program


def test_what_cmake_is_told(
    root: Path, tools: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CMAKE_ARGS", "-DVLLM_WERROR=OFF '-DSPACED=a b'")
    config = configuration(root, werror=True)
    assert cmake_configure.run(config) is True
    (call,) = calls(tools)
    folder = tmp_path / "build" / "cpu-abi3-relwithdebinfo"
    assert call["args"][:6] == ["-S", str(root), "-B", str(folder), "-G", "Ninja"]
    assert call["args"][-2:] == ["-DVLLM_WERROR=OFF", "-DSPACED=a b"], "CMAKE_ARGS come last"
    assert "-DVLLM_WERROR=ON" in call["args"]
    assert "--fresh" not in call["args"]
    told = defined(call)
    assert told["CMAKE_BUILD_TYPE"] == "RelWithDebInfo"
    assert (told["VLLM_EXT_SUFFIX"], told["VLLM_ABI3"], told["VLLM_HEAVY_JOBS"]) == (
        ".abi3.so",
        "ON",
        "1",
    )
    assert json.loads(Path(told["VLLM_PLAN"]).read_text(encoding="utf-8"))["device"] == "cpu"
    for name in (
        "VLLM_PLAN",
        "VLLM_TORCH_INCLUDE_DIRS",
        "VLLM_TORCH_CPU_LIBRARY",
        "VLLM_PYTHON_INCLUDE_DIR",
    ):
        assert told[name].startswith(str(folder)), (
            f"{name} does not depend on the place where this build found it"
        )
        assert Path(told[name]).exists()
    assert call["env"]["LC_ALL"] == "C.UTF-8"
    assert call["env"]["CCACHE_BASEDIR"] == str(root)


def test_a_second_time_cmake_does_not_run(root: Path, tools: Path) -> None:
    assert cmake_configure.run(configuration(root)) is True
    assert cmake_configure.run(configuration(root)) is False
    assert len(calls(tools)) == 1


def test_what_is_kept_of_a_secret(root: Path, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other users cannot read a secret in the record of the build folder or in CMake's files."""
    assert cmake_configure.run(configuration(root))
    folder = configuration(root).folder
    folder.chmod(0o755)
    for secret, fresh in (("pa55w0rd", False), ("0ther", False)):
        monkeypatch.setenv("CMAKE_ARGS", f"-DMIRROR=https://user:{secret}@host/x")
        assert cmake_configure.run(configuration(root)), "the arguments differ"
        assert not cmake_configure.run(configuration(root)), "the arguments are the same"
        call = calls(tools)[-1]
        assert f"-DMIRROR=https://user:{secret}@host/x" in call["args"]
        assert ("--fresh" in call["args"]) == fresh
        assert secret not in (folder / "configured.json").read_text(encoding="utf-8")
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_torch_in_another_temporary_folder_changes_nothing(
    root: Path, tools: Path, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm_build.target import torch_flavour

    cmake_configure.run(configuration(root))
    first = calls(tools)
    moved = bare.with_name("pip-build-env-2")
    bare.rename(moved)
    monkeypatch.setattr(torch_flavour, "_sites", lambda _: [moved])
    assert cmake_configure.run(configuration(root)) is False
    assert (first[0]["args"], calls(tools)) == (first[0]["args"], [])


@pytest.mark.parametrize(
    ("before", "after", "fresh"),
    [
        ({}, {"CMAKE_ARGS": "-DX=1"}, False),
        ({"CMAKE_ARGS": "-DX=1"}, {"CMAKE_ARGS": "-DX=2"}, False),
        ({"CMAKE_ARGS": "-DX=1"}, {"CMAKE_ARGS": ""}, True),
        ({}, {"CXX": "g++"}, True),
        ({}, {"CXXFLAGS": "-O1"}, True),
        ({}, {"CMAKE_GENERATOR": "Unix Makefiles"}, True),
        ({}, {"VLLM_WERROR": "1"}, False),
        ({"HIGHWAY_SRC_DIR": "/one"}, {"HIGHWAY_SRC_DIR": "/two"}, False),
        ({"HIGHWAY_SRC_DIR": "/one"}, {"HIGHWAY_SRC_DIR": ""}, True),
        ({"CMAKE_CXX_COMPILER_LAUNCHER": "a"}, {"CMAKE_CXX_COMPILER_LAUNCHER": "b"}, False),
    ],
)
def test_what_cmake_remembers_never_wins(
    root: Path,
    tools: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: dict[str, str],
    after: dict[str, str],
    *,
    fresh: bool,
) -> None:
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    cmake_configure.run(configuration(root))
    for name, value in after.items():
        monkeypatch.setenv(name, value)
    assert cmake_configure.run(configuration(root)) is True
    assert ("--fresh" in calls(tools)[1]["args"]) is fresh


def test_an_updated_compiler_at_the_same_path(root: Path, tools: Path, program: Program) -> None:
    cmake_configure.run(configuration(root))
    program(tools / "c++", "another release")
    assert cmake_configure.run(configuration(root)) is True
    assert "--fresh" in calls(tools)[1]["args"]


@pytest.mark.parametrize("damage", ["missing", "not json", "other keys"])
def test_a_folder_whose_configure_step_was_cut_short(root: Path, tools: Path, damage: str) -> None:
    config = configuration(root)
    cmake_configure.run(config)
    stamp = config.folder / "configured.json"
    if damage == "missing":
        stamp.unlink()
    else:
        stamp.write_text("[" if damage == "not json" else "{}", encoding="utf-8")
    assert cmake_configure.run(config) is True
    assert "--fresh" in calls(tools)[1]["args"]


def test_a_configure_step_that_fails_is_not_remembered(root: Path, tools: Path) -> None:
    config = configuration(root)
    (tools / "fail").touch()
    with pytest.raises(
        BuildError,
        match=r"cmake's configure step failed \(exit status 1\)\nCMake Error at CMakeLists\.txt:1",
    ):
        cmake_configure.run(config)
    (tools / "fail").unlink()
    assert cmake_configure.run(config) is True
    assert cmake_configure.run(config) is False


def test_the_toolkit_of_the_plan_is_the_one_that_compiles(root: Path, tools: Path) -> None:
    assert tools.is_dir()
    config = configuration(root)
    for kind, expected in (
        ("cuda", {"CMAKE_CUDA_COMPILER": "/t/bin/x", "CUDAToolkit_ROOT": "/t"}),
        ("sycl", {}),
    ):
        toolkit = Toolkit(kind, Version("12.9"), Path("/t"), Path("/t/bin/x"), "said so")
        config = replace(config, target=Target(kind, "asked for", toolkit))
        told = toolkit_variables.of_target(config.target, config.settings)
        assert told == expected


@pytest.mark.parametrize(
    ("variables", "chosen"),
    [
        ({}, None),
        ({"CXX": "mine-g++ -m64"}, "mine-g++"),
        ({"CXX": "missing-g++"}, None),
        ({"CXX": "mine-g++", "CUDAHOSTCXX": "g++-11"}, None),
        ({"CXX": "mine-g++", "NVCC_CCBIN": "g++-11"}, None),
        ({"CXX": "mine-g++", "NVCC_PREPEND_FLAGS": "-O2 -ccbin=g++-11"}, None),
        ({"CXX": "mine-g++", "NVCC_APPEND_FLAGS": "--compiler-bindir g++-11"}, None),
    ],
    ids=str,
)
def test_nvcc_compiles_with_the_compiler_that_cxx_names(
    tmp_path: Path, variables: dict[str, str], chosen: str | None
) -> None:
    """With another one, objects could need a newer glibc than the one they are linked with."""
    program = tmp_path / "mine-g++"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    toolkit = Toolkit("cuda", Version("13.0"), Path("/t"), Path("/t/bin/nvcc"), "said so")
    settings = Settings(search_path=str(tmp_path), inherited=variables)
    told = toolkit_variables.of_target(Target("cuda", "asked for", toolkit), settings)
    assert told.get("CMAKE_CUDA_HOST_COMPILER") == (chosen and str(tmp_path / chosen))


def installed_highway(prefix: Path) -> Path:
    folder = prefix / "lib" / "cmake" / "hwy"
    folder.mkdir(parents=True)
    (folder / "hwy-config.cmake").touch()
    return folder


def test_where_highway_comes_from(
    root: Path, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tools.is_dir()

    def told(**settings: Any) -> dict[str, str]:
        return highway_lookup.find(configuration(root, **settings))

    assert told() == {}, "CMake searches, and its error says what to do if it finds nothing"
    cached = third_party.read(root)["highway"].folder
    cached.mkdir(parents=True)
    with pytest.raises(IntegrityError, match="not the locked ones"):
        told()
    monkeypatch.setattr(third_party.Source, "cached", lambda source: source.folder)
    assert told() == {"HIGHWAY_SRC_DIR": str(cached)}
    assert highway_lookup.link(configuration(root), tmp_path / "inputs") == {
        "HIGHWAY_SRC_DIR": str(tmp_path / "inputs" / "highway")
    }
    assert (tmp_path / "inputs" / "highway").readlink() == cached
    conda = installed_highway(tmp_path / "conda")
    assert told(conda_prefix=tmp_path / "conda") == {"hwy_DIR": str(conda)}
    named = installed_highway(tmp_path / "named")
    assert told(
        conda_prefix=tmp_path / "conda",
        cmake_args=(f"-DCMAKE_PREFIX_PATH=/x;{tmp_path / 'named'}",),
    ) == {"hwy_DIR": str(named)}
    monkeypatch.setenv("CMAKE_PREFIX_PATH", f"/x:{tmp_path / 'named'}")
    assert told(conda_prefix=tmp_path / "conda") == {"hwy_DIR": str(named)}
    assert told(cmake_args=("-Dhwy_DIR=/mine",)) == {}
    monkeypatch.setenv("hwy_ROOT", "/mine")
    assert told() == {}
    assert told(highway_source=Path("/src")) == {"HIGHWAY_SRC_DIR": "/src"}
    config = configuration(root)
    assert highway_lookup.find(replace(config, plan=replace(config.plan, extensions=()))) == {}
