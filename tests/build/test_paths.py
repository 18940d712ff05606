# SPDX-License-Identifier: Apache-2.0
"""Folders with unusual names work, or are refused with a remedy before any work."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vllm_build import cli
from vllm_build.native import cmake, cmake_configure, unit_times
from vllm_build.settings.build_settings import Settings
from vllm_build.util import path_rules, paths
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.processes import programs
from vllm_build.wheels import distribution

if TYPE_CHECKING:
    from collections.abc import Callable

#: Names of folders in which a build with Ninja works.
GOOD = [
    "a b",
    "it's",
    "a#b",
    "a%b",
    "ünï",
    "(a)",
    "a&b",
    "a=b",
    "user@host",
    "a!b",
    "a{b}",
    "~a",
    "-a",
    "a+b",
]
BAD = [
    "a;b",
    "a:b",
    "a$b",
    'a"b',
    "a\\b",
    "a\nb",
    "a\tb",
    "a[b",
    "a]b",
    "a,b",
    "a`b",
    "a*b",
    "a?b",
    "a<b",
    "a|b",
    "a@b@c",
]


@pytest.mark.parametrize("name", GOOD)
def test_what_ninja_takes(name: str) -> None:
    path_rules.require_buildable(Path("/x") / name, Path("/x") / name / "build")


@pytest.mark.parametrize("name", BAD)
def test_what_nothing_takes(name: str) -> None:
    for root, build, remedy in ((name, "y", "move the tree"), ("y", name, "VLLM_BUILD_ROOT")):
        with pytest.raises(ConfigurationError, match=r"has .* in its path") as caught:
            path_rules.require_buildable(Path("/x") / root, Path("/x") / build)
        assert remedy in str(caught.value)
        assert "\n" not in caught.value.message, "a control character must be escaped"


@pytest.mark.parametrize("name", ["a%b", "a#b", "a=b"])
def test_what_make_does_not_take(name: str) -> None:
    with pytest.raises(ConfigurationError, match="pip install ninja"):
        path_rules.require_buildable(Path("/x") / name, Path("/x"), make=True)


def test_long_paths() -> None:
    path_rules.require_buildable(Path("/" + "x/" * 340), Path("/x"))
    with pytest.raises(ConfigurationError, match="has a path of 801 bytes"):
        path_rules.require_buildable(Path("/" + "ü/" * 266 + "yy"), Path("/x"))
    path_rules.require_prefix(Path("/" + "x" * 179), "the output folder", "")
    with pytest.raises(ConfigurationError, match="at most 180"):
        path_rules.require_prefix(Path("/" + "x" * 180), "the output folder", "")


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in GOOD if name not in ("ünï", "a=b", "user@host", "~a", "-a", "a+b")),
        *BAD[:-1],
    ],
)
@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["package", "cpu", "--output", "{}"], "--output"),
        (["test-package", "cpu", "--output", "{}"], "--output"),
        (["install", "{}"], "name another folder"),
    ],
    ids=["package", "test-package", "install"],
)
def test_commands_refuse_folders_that_environments_cannot_lie_in(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    words: list[str],
    remedy: str,
) -> None:
    monkeypatch.setenv("VLLM_BUILD_CACHE", "/cache")
    assert (
        cli.main([word.format(tmp_path / name) for word in words]) == ConfigurationError.exit_code
    )
    assert remedy in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [["package", "cpu"], ["toolchain"], ["test-package", "cpu"]],
    ids=lambda words: words[0],
)
def test_commands_refuse_such_caches(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "my cache"))
    assert cli.main(words) == ConfigurationError.exit_code
    said = capsys.readouterr().err
    assert "has a space in its path" in said
    assert "VLLM_BUILD_CACHE" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"target_device": "cpu"}, True),
        ({"target_device": "cpu", "use_precompiled": True, "precompiled_partial": True}, True),
        # This command compiles nothing.
        ({"target_device": "cpu", "use_precompiled": True}, False),
        ({"target_device": "empty"}, False),
    ],
)
def test_the_first_hook_refuses(root: Path, settings: dict[str, Any], refused: bool) -> None:  # noqa: FBT001 - a parameter
    asked = Settings(**settings, build_root=Path("/x/a;b"))
    if refused:
        with pytest.raises(ConfigurationError, match="VLLM_BUILD_ROOT"):
            distribution.arguments(root, asked, ["setup.py", "egg_info"])
    else:
        distribution.arguments(root, asked, ["setup.py", "egg_info"])


def test_make_is_known(bare: Path, tmp_path: Path, program: Callable[..., Path]) -> None:
    assert bare.is_dir()
    assert cmake.runs_make(Settings(generator="Unix Makefiles"))
    program(tmp_path / "path" / "make")
    assert cmake.runs_make(Settings()) == (
        Path(str(programs.look_for("ninja") or "")).name != "ninja"
    )


def test_the_launcher_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without quotes, a shell ran ``python3 /a/b c/measured.py``: can't open file '/a/b'."""
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    copy = folder / "measured.py"
    copy.write_bytes(unit_times.LAUNCHER.read_bytes())
    monkeypatch.setattr(cmake_configure.unit_times, "LAUNCHER", copy)
    command = (
        cmake_configure.launcher().replace("<OBJECT>", "x.o")
        + f" {shlex.quote(sys.executable)} -c 'print(1)'"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert (tmp_path / unit_times.RECORD).is_file()


@pytest.mark.parametrize("value", ["it's a variant.yaml", 'a "b".yaml', "a;b", "a b"])
def test_the_makefile_quotes(root: Path, value: str) -> None:
    make = ["make", "--dry-run", "--no-print-directory", "-C", str(root)]
    done = subprocess.run(
        [*make, "package", f"VARIANT={value}"], capture_output=True, text=True, check=True
    )
    (line,) = [line for line in done.stdout.splitlines() if "vllm-build package" in line]
    assert shlex.split(line)[-2:] == ["package", value]
    done = subprocess.run(
        [*make, "gpu-tests", f"PYTHON=/x/{value}/python", "ARGS=-k a"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shlex.split(done.stdout.splitlines()[-1]) == [
        f"/x/{value}/python",
        "tests/kernels/on_gpu.py",
        "-k",
        "a",
    ]


#: Uses the same features as our CMakeLists.txt: a launcher, a check that compiles, includes, prefix
#: maps, a version script, an installed module.
PROJECT = """
cmake_minimum_required(VERSION 3.26)
project(p LANGUAGES CXX)
set_property(GLOBAL PROPERTY RULE_LAUNCH_COMPILE "${VLLM_COMPILE_LAUNCHER}")
include(CheckCXXSourceCompiles)
check_cxx_source_compiles("int main() { return 0; }" WORKS)
add_library(m MODULE "${CMAKE_CURRENT_SOURCE_DIR}/m.cc")
target_include_directories(m SYSTEM PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}/inc")
target_compile_options(m PRIVATE "-ffile-prefix-map=${CMAKE_CURRENT_SOURCE_DIR}/="
  "-ffile-prefix-map=${CMAKE_CURRENT_BINARY_DIR}=build")
target_link_options(m PRIVATE
  "LINKER:--version-script=${CMAKE_CURRENT_SOURCE_DIR}/map" LINKER:-z,defs)
install(TARGETS m LIBRARY DESTINATION lib COMPONENT k)
if(NOT WORKS)
  message(FATAL_ERROR "the check does not compile")
endif()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", GOOD)
def test_tools_take_these_names(tmp_path: Path, name: str) -> None:
    """CMake, Ninja, the compiler and the linker of this machine work with all these names."""
    folder = tmp_path / name
    (folder / "inc").mkdir(parents=True)
    for file, text in {
        "CMakeLists.txt": PROJECT,
        "m.cc": '#include <h.h>\nextern "C" const char* f() { return __FILE__; }\n',
        "inc/h.h": "",
        "map": "{ global: f; local: *; };\n",
    }.items():
        (folder / file).write_text(text, encoding="utf-8")
    build = folder / "build"
    definition = f"-DVLLM_COMPILE_LAUNCHER={cmake_configure.launcher()}"
    commands = (
        ["cmake", "-S", str(folder), "-B", str(build), "-G", "Ninja", definition],
        ["cmake", "--build", str(build)],
        ["cmake", "--install", str(build), "--component", "k", "--prefix", str(folder / "stage")],
        ["cmake", "--build", str(build)],
    )
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    printed = ""
    for command in commands:
        done = subprocess.run(
            command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        printed = done.stdout
    assert "no work to do" in printed, "a second build compiles nothing"
    assert b"inc/h.h" not in (library := (folder / "stage" / "lib" / "libm.so").read_bytes())
    assert str(folder).encode() not in library


def test_the_root_of_this_tree_passes() -> None:
    path_rules.require_buildable(paths.source_root(), paths.source_root() / "build")
