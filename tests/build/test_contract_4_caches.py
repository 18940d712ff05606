# SPDX-License-Identifier: Apache-2.0
"""Section 4 of the build contract: launchers, generator, CMAKE_ARGS, build types, folders that are kept, command lines that stay the same.

CMake is a stand-in that writes down what it was told; the real one builds in tests/build/pip.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from packaging.version import Version
from setuptools import Distribution

from vllm_build import audit, build_info, cmake, cmake_ext, configure, digest, locks, native_build, paths, third_party
from vllm_build.configuration import Configuration
from vllm_build.device import Target
from vllm_build.errors import BuildError, BusyError, ConfigurationError, IntegrityError, ToolchainError
from vllm_build.jobs import Jobs
from vllm_build.settings import Settings
from vllm_build.toolkit import Toolkit

if TYPE_CHECKING:
    from conftest import Program, Torch

HEADER = "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 11\n#define TORCH_VERSION_PATCH 0\n"
#: Does what the real one does as far as its callers can see; every call is a line of calls.json.
CMAKE = """#!{python}
import json, os, pathlib, shutil, sys
here, args = pathlib.Path({here!r}), sys.argv[1:]
if args == ["--version"]:
    print("cmake version 3.31.0")
    sys.exit(0)
with (here / "calls.json").open("a") as calls:
    calls.write(json.dumps({{"args": args, "env": dict(os.environ)}}) + "\\n")
if (here / "fail").exists():
    print("CMake Error at CMakeLists.txt:1: told to fail")
    sys.exit(1)
if "-B" in args:
    build = pathlib.Path(args[args.index("-B") + 1])
    (build / "CMakeCache.txt").write_text("cache")
    (build / "build.ninja").touch()
elif args[0] == "--build" and not (here / "links-nothing").exists():
    shutil.copy(here / "library", pathlib.Path(args[1]) / (here / "name").read_text())
elif args[0] == "--install" and not (here / "installs-nothing").exists():
    target = pathlib.Path(args[args.index("--prefix") + 1]) / "vllm"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(here / "library", target / (here / "name").read_text())
"""


@pytest.fixture
def tools(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Program, torch: Torch) -> Path:
    """cmake, ninja, a compiler and torch's files; returns the folder where cmake keeps its notes."""
    here = tmp_path / "path"
    program(here / "ninja", "1.13.0")
    program(here / "cc")
    program(here / "c++")
    (here / "cmake").write_text(CMAKE.format(python=sys.executable, here=str(here)), encoding="utf-8")
    (here / "cmake").chmod(0o755)
    (extension,) = Path(zstandard.__file__).parent.glob("backend_c.*.so")
    shutil.copy(extension, here / "library")
    (here / "name").write_text("_C.abi3.so", encoding="utf-8")
    package = torch(bare, "2.11.0+cpu")
    for folder in ("torch/headeronly", "torch/csrc/stable", "torch/csrc/inductor/aoti_torch"):
        (package / "include" / folder).mkdir(parents=True)
        (package / "include" / folder / "version.h").write_text(HEADER, encoding="utf-8")
    (package / "lib").mkdir()
    (package / "lib" / "libtorch_cpu.so").touch()
    monkeypatch.setattr(cmake.sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setattr(audit, "_CHECKS", {})
    monkeypatch.setattr(native_build.op_check, "require", lambda *_: "ops not compared")
    for name in list(os.environ):
        if name.startswith(("CMAKE", "CC", "CXX", "LDFLAGS", "NINJA", "VLLM", "HIGHWAY", "hwy")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VLLM_BUILD_ROOT", str(tmp_path / "build"))
    return here


def calls(tools: Path) -> list[dict[str, Any]]:
    """What cmake was told since the last question."""
    path = tools / "calls.json"
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def configuration(root: Path, **settings: Any) -> Configuration:
    return Configuration.of(root, replace(Settings.from_environ(), target_device="cpu", **settings))


def defined(call: dict[str, Any]) -> dict[str, str]:
    return dict(argument[2:].split("=", 1) for argument in call["args"] if argument.startswith("-D"))


# Launchers


@pytest.mark.parametrize(
    ("installed", "settings", "expected"),
    [
        ((), Settings(), {}),
        (("ccache",), Settings(), dict.fromkeys(("C", "CXX", "CUDA", "HIP"), "ccache")),
        (("sccache", "ccache"), Settings(), dict.fromkeys(("C", "CXX", "CUDA", "HIP"), "sccache")),
        (("sccache", "ccache"), Settings(disable_sccache=True), dict.fromkeys(("C", "CXX", "CUDA", "HIP"), "ccache")),
        (("sccache", "ccache"), Settings(disable_ccache=True), dict.fromkeys(("C", "CXX", "CUDA", "HIP"), "sccache")),
        (("sccache", "ccache"), Settings(disable_sccache=True, disable_ccache=True), {}),
        (("ccache",), Settings(cxx_launcher="distcc"), {"C": "ccache", "CXX": "distcc", "CUDA": "ccache", "HIP": "ccache"}),
        (
            (),
            Settings(c_launcher="a", cxx_launcher="b", cuda_launcher="c", hip_launcher="d"),
            {"C": "a", "CXX": "b", "CUDA": "c", "HIP": "d"},
        ),
        (("ccache",), Settings(cmake_args=("-DCMAKE_CUDA_COMPILER_LAUNCHER=",)), {"C": "ccache", "CXX": "ccache", "HIP": "ccache"}),
        (("ccache",), Settings(disable_ccache=True, cxx_launcher="mine"), {"CXX": "mine"}),
    ],
)
def test_launchers(
    bare: Path, tmp_path: Path, program: Program, installed: tuple[str, ...], settings: Settings, expected: dict[str, str]
) -> None:
    assert bare.is_dir()
    for name in installed:
        program(tmp_path / "path" / name)
    found = cmake.launchers(settings)
    assert {key.removeprefix("CMAKE_").removesuffix("_COMPILER_LAUNCHER"): Path(value).name for key, value in found.items()} == expected


# Programs


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


def test_ninja_of_the_environment_comes_first(tools: Path, tmp_path: Path, program: Program) -> None:
    assert cmake.find_generator(Settings()).program == str(tools / "ninja")
    inside = program(tmp_path / "bin" / "ninja")
    assert cmake.find_generator(Settings()).program == str(inside)
    assert cmake.find_program("ninja") == str(inside)
    with pytest.raises(ToolchainError, match="nothing-of-that-name was not found"):
        cmake.find_program("nothing-of-that-name")


def test_cmake_that_is_too_old_is_passed_over(bare: Path, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bare.is_dir()
    monkeypatch.setattr(cmake.sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'one'}:{tmp_path / 'two'}::{tmp_path / 'three'}")
    with pytest.raises(ToolchainError, match=r"^no usable cmake was found\n"):
        cmake.find_cmake()
    program(tmp_path / "one" / "cmake", "cmake version 3.25.1")
    program(tmp_path / "two" / "cmake", "nonsense")
    with pytest.raises(ToolchainError, match=r"one/cmake \(3\.25\), .*two/cmake \(does not tell its version\)"):
        cmake.find_cmake()
    new = program(tmp_path / "three" / "cmake", "cmake version 4.4.4")
    assert cmake.find_cmake() == str(new)
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


# The configure step


def test_what_cmake_is_told(root: Path, tools: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CMAKE_ARGS", "-DVLLM_WERROR=OFF '-DSPACED=a b'")
    config = configuration(root, werror=True)
    assert configure.run(config) is True
    (call,) = calls(tools)
    folder = tmp_path / "build" / "cpu-abi3-relwithdebinfo"
    assert call["args"][:6] == ["-S", str(root), "-B", str(folder), "-G", "Ninja"]
    assert call["args"][-2:] == ["-DVLLM_WERROR=OFF", "-DSPACED=a b"], "CMAKE_ARGS go last"
    assert "-DVLLM_WERROR=ON" in call["args"]
    assert "--fresh" not in call["args"]
    told = defined(call)
    assert told["CMAKE_BUILD_TYPE"] == "RelWithDebInfo"
    assert (told["VLLM_EXT_SUFFIX"], told["VLLM_ABI3"], told["VLLM_HEAVY_JOBS"]) == (".abi3.so", "ON", "1")
    assert json.loads(Path(told["VLLM_PLAN"]).read_text(encoding="utf-8"))["device"] == "cpu"
    for name in ("VLLM_PLAN", "VLLM_TORCH_INCLUDE_DIRS", "VLLM_TORCH_CPU_LIBRARY", "VLLM_PYTHON_INCLUDE_DIR"):
        assert told[name].startswith(str(folder)), f"{name} does not depend on where this build found it"
        assert Path(told[name]).exists()
    assert call["env"]["LC_ALL"] == "C.UTF-8"
    assert call["env"]["CCACHE_BASEDIR"] == str(root)


def test_a_second_time_cmake_does_not_run(root: Path, tools: Path) -> None:
    assert configure.run(configuration(root)) is True
    assert configure.run(configuration(root)) is False
    assert len(calls(tools)) == 1


def test_a_torch_in_another_temporary_folder_changes_nothing(root: Path, tools: Path, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm_build import torch_flavour

    configure.run(configuration(root))
    first = calls(tools)
    moved = bare.with_name("pip-build-env-2")
    bare.rename(moved)
    monkeypatch.setattr(torch_flavour, "_sites", lambda _: [moved])
    assert configure.run(configuration(root)) is False
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
    root: Path, tools: Path, monkeypatch: pytest.MonkeyPatch, before: dict[str, str], after: dict[str, str], *, fresh: bool
) -> None:
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    configure.run(configuration(root))
    for name, value in after.items():
        monkeypatch.setenv(name, value)
    assert configure.run(configuration(root)) is True
    assert ("--fresh" in calls(tools)[1]["args"]) is fresh


def test_an_updated_compiler_at_the_same_path(root: Path, tools: Path, program: Program) -> None:
    configure.run(configuration(root))
    program(tools / "c++", "another release")
    assert configure.run(configuration(root)) is True
    assert "--fresh" in calls(tools)[1]["args"]


@pytest.mark.parametrize("damage", ["missing", "not json", "other keys"])
def test_a_folder_whose_configure_step_was_cut_short(root: Path, tools: Path, damage: str) -> None:
    config = configuration(root)
    configure.run(config)
    stamp = config.folder / "configured.json"
    if damage == "missing":
        stamp.unlink()
    else:
        stamp.write_text("[" if damage == "not json" else "{}", encoding="utf-8")
    assert configure.run(config) is True
    assert "--fresh" in calls(tools)[1]["args"]


def test_a_configure_step_that_fails_is_not_remembered(root: Path, tools: Path) -> None:
    config = configuration(root)
    (tools / "fail").touch()
    with pytest.raises(BuildError, match=r"cmake's configure step failed \(exit status 1\)\nCMake Error at CMakeLists\.txt:1"):
        configure.run(config)
    (tools / "fail").unlink()
    assert configure.run(config) is True
    assert configure.run(config) is False


def test_the_toolkit_of_the_plan_is_the_one_that_compiles(root: Path, tools: Path) -> None:
    assert tools.is_dir()
    config = configuration(root)
    for kind, expected in (
        ("cuda", {"CMAKE_CUDA_COMPILER": "/t/bin/x", "CUDAToolkit_ROOT": "/t"}),
        ("rocm", {"CMAKE_HIP_COMPILER_ROCM_ROOT": "/t"}),
        ("sycl", {}),
    ):
        toolkit = Toolkit(kind, Version("12.9"), Path("/t"), Path("/t/bin/x"), "said so")
        config = replace(config, target=Target(kind, "asked for", toolkit))
        told = configure._toolkit(config)
        assert told == expected


# Highway


def installed_highway(prefix: Path) -> Path:
    folder = prefix / "lib" / "cmake" / "hwy"
    folder.mkdir(parents=True)
    (folder / "hwy-config.cmake").touch()
    return folder


def test_where_highway_comes_from(root: Path, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tools.is_dir()

    def told(**settings: Any) -> dict[str, str]:
        return configure.highway(configuration(root, **settings), tmp_path / "inputs")

    assert told() == {}, "CMake looks by itself, and says what to do when it finds nothing"
    cached = third_party.read(root)["highway"].folder
    cached.mkdir(parents=True)
    assert told() == {"HIGHWAY_SRC_DIR": str(tmp_path / "inputs" / "highway")}
    assert (tmp_path / "inputs" / "highway").readlink() == cached
    conda = installed_highway(tmp_path / "conda")
    assert told(conda_prefix=tmp_path / "conda") == {"hwy_DIR": str(conda)}
    named = installed_highway(tmp_path / "named")
    assert told(conda_prefix=tmp_path / "conda", cmake_args=(f"-DCMAKE_PREFIX_PATH=/x;{tmp_path / 'named'}",)) == {"hwy_DIR": str(named)}
    monkeypatch.setenv("CMAKE_PREFIX_PATH", f"/x:{tmp_path / 'named'}")
    assert told(conda_prefix=tmp_path / "conda") == {"hwy_DIR": str(named)}
    assert told(cmake_args=("-Dhwy_DIR=/mine",)) == {}
    monkeypatch.setenv("hwy_ROOT", "/mine")
    assert told() == {}
    assert told(highway_source=Path("/src")) == {"HIGHWAY_SRC_DIR": "/src"}
    config = configuration(root)
    assert configure.highway(replace(config, plan=replace(config.plan, extensions=())), tmp_path) == {}


# The environment of the compilers


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
    assert configure.environ(configuration(root))["LDFLAGS"] == expected


def test_the_users_cache_settings_stay(root: Path, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tools.is_dir()
    monkeypatch.setenv("CCACHE_BASEDIR", "/mine")
    env = configure.environ(configuration(root), Jobs(4, 2, 1, ()))
    assert env["CCACHE_BASEDIR"] == "/mine"
    assert env["NVCC_APPEND_FLAGS"] == "--threads=2", "in no command line"
    assert "LDFLAGS" not in env


# The whole command


@pytest.fixture
def command(root: Path, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> cmake_ext.cmake_build_ext:
    assert tools.is_dir()
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    monkeypatch.setenv("MAX_JOBS", "3")
    extension = cmake_ext.CMakeExtension("vllm._C", str(root))
    command = cmake_ext.cmake_build_ext(Distribution({"name": "vllm", "version": "1.0", "ext_modules": [extension]}))
    command.build_lib = str(tmp_path / "lib")
    command.ensure_finalized()
    return command


def test_compute_num_jobs(command: cmake_ext.cmake_build_ext, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command.compute_num_jobs() == (3, None)
    monkeypatch.setenv("MAX_JOBS", "0")
    with pytest.raises(ConfigurationError, match="MAX_JOBS='0'"):
        command.compute_num_jobs()


def test_configure_returns_nothing_and_configures(command: cmake_ext.cmake_build_ext, tools: Path) -> None:
    command.configure(command.extensions[0])  # type: ignore[func-returns-value]
    assert calls(tools)[0]["args"][0] == "-S"


def test_a_build_from_beginning_to_end(
    command: cmake_ext.cmake_build_ext, tools: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command.run()
    steps = [call["args"] for call in calls(tools)]
    assert [step[0] for step in steps] == ["-S", "--build", "--install"]
    assert steps[1][2:] == ["--parallel", "3"]
    assert steps[2][2:5] == ["--component", "vllm-kernels", "--prefix"]
    said = capfd.readouterr().err
    assert "device: cpu (VLLM_TARGET_DEVICE=cpu" in said
    assert "jobs: 3 (" in said
    outputs = [Path(name).relative_to(tmp_path / "lib").as_posix() for name in command.get_outputs()]
    assert outputs == ["vllm/_C.abi3.so", "vllm/_build_info/vllm-kernels.json"]
    record = json.loads((tmp_path / "lib" / outputs[1]).read_text(encoding="utf-8"))
    assert record["extensions"][0]["name"] == "vllm._C"
    assert (record["device"], record["python_abi"], record["torch_target"]) == ("cpu", "abi3", "2.11")
    assert record["kernel_digest"] == digest.kernel_digest(paths.source_root())
    assert command.get_output_mapping() == {}
    # What passed its checks is not checked again.
    command.build_extensions()
    assert "ops not compared" not in capfd.readouterr().err


def test_verbose_shows_commands(command: cmake_ext.cmake_build_ext, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERBOSE", "1")
    command.run()
    assert calls(tools)[1]["args"][-1] == "--verbose"


def test_a_second_build_in_the_same_folder_is_refused(command: cmake_ext.cmake_build_ext, tmp_path: Path) -> None:
    with locks.exclusive(tmp_path / "build" / "cpu-abi3-relwithdebinfo", "x"), pytest.raises(BusyError, match="this build folder"):
        command.run()


def test_an_announced_digest(command: cmake_ext.cmake_build_ext, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_KERNEL_DIGEST", "0" * 12)
    with pytest.raises(IntegrityError, match="the caller announced 000000000000"):
        command.run()
    assert calls(tools) == []
    monkeypatch.setenv("VLLM_KERNEL_DIGEST", digest.kernel_digest(paths.source_root())[: digest.SHORT])
    command.build_extensions()


@pytest.mark.parametrize(("trouble", "words"), [("links-nothing", "the build left no"), ("installs-nothing", "CMake installed no")])
def test_a_library_that_is_not_there(command: cmake_ext.cmake_build_ext, tools: Path, trouble: str, words: str) -> None:
    (tools / trouble).touch()
    with pytest.raises(BuildError, match=words):
        command.run()


def test_a_library_that_fails_an_audit(
    command: cmake_ext.cmake_build_ext, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    findings = (
        audit.Finding("_C.abi3.so", "abi3audit", good=True, text=""),
        audit.Finding("_C.abi3.so", "other", good=False, text="uses Py_X"),
    )
    monkeypatch.setattr(audit, "where_installed", lambda *_, **__: findings)
    with pytest.raises(BuildError, match=r"_C\.abi3\.so: other: uses Py_X"):
        command.run()
    assert "_C.abi3.so: abi3audit: good" in capfd.readouterr().err


def test_a_library_that_asks_for_strangers(command: cmake_ext.cmake_build_ext, tools: Path) -> None:
    library = tools / "library"
    library.write_bytes(library.read_bytes().replace(b"libc.so.6\0", b"libx.so.6\0"))
    with pytest.raises(BuildError, match=r"needs the library libx\.so\.6"):
        command.run()


def test_extensions_of_others_are_left_alone(tools: Path) -> None:
    command = cmake_ext.cmake_build_ext(Distribution({"name": "x"}))
    command.extensions = []
    command.build_extensions()
    assert calls(tools) == []


def test_editable_installs_replace_what_another_build_left(
    command: cmake_ext.cmake_build_ext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.run()
    tree = tmp_path / "tree"
    (tree / "vllm" / "_build_info").mkdir(parents=True)
    (tree / "vllm" / "_moe_C.abi3.so").write_text("of a CUDA build", encoding="utf-8")
    (tree / "vllm" / "_build_info" / "vllm-flashmla.json").touch()
    monkeypatch.setattr(paths, "source_root", lambda: tree)
    command.inplace = True
    assert command.get_output_mapping() == {
        str(tmp_path / "lib" / name): str(tree / name) for name in ("vllm/_C.abi3.so", "vllm/_build_info/vllm-kernels.json")
    }
    command.copy_extensions_to_source()
    present = sorted(p.relative_to(tree).as_posix() for p in tree.rglob("*") if p.is_file())
    assert present == ["vllm/_C.abi3.so", "vllm/_build_info/vllm-kernels.json"]
    before = (tree / "vllm" / "_C.abi3.so").stat().st_ino
    command.copy_extensions_to_source()
    assert (tree / "vllm" / "_C.abi3.so").stat().st_ino == before, "the same content is not written again"


def test_the_compiler_that_cmake_found(tmp_path: Path) -> None:
    assert build_info.compiler_of(tmp_path) == {}
    folder = tmp_path / "CMakeFiles" / "4.4.4"
    folder.mkdir(parents=True)
    text = 'set(CMAKE_CXX_COMPILER_ID "GNU")\nset(CMAKE_CXX_COMPILER_VERSION "12.2.0")\n'
    (folder / "CMakeCXXCompiler.cmake").write_text(text, encoding="utf-8")
    assert build_info.compiler_of(tmp_path) == {"id": "GNU", "version": "12.2.0"}
