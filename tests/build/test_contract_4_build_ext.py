# SPDX-License-Identifier: Apache-2.0
"""Build contract, section 4: ``build_ext`` from the device to installed libraries.

A program that imitates CMake runs instead of it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fake_cmake import calls
from setuptools import Distribution

from vllm_build.checks import library_audit
from vllm_build.digests import tree_digests
from vllm_build.native.job_count import Jobs
from vllm_build.project import build_info
from vllm_build.util import locks, paths
from vllm_build.util.errors import (
    BuildError,
    BusyError,
    ConfigurationError,
    IntegrityError,
    ResourceError,
)
from vllm_build.wheels import cmake_ext


@pytest.fixture
def command(
    root: Path, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> cmake_ext.cmake_build_ext:
    assert tools.is_dir()
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    monkeypatch.setenv("MAX_JOBS", "3")
    extension = cmake_ext.CMakeExtension("vllm._C", str(root))
    command = cmake_ext.cmake_build_ext(
        Distribution({"name": "vllm", "version": "1.0", "ext_modules": [extension]})
    )
    command.build_lib = str(tmp_path / "lib")
    command.ensure_finalized()
    return command


def test_compute_num_jobs(
    command: cmake_ext.cmake_build_ext, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command.compute_num_jobs() == (3, None)
    monkeypatch.setenv("MAX_JOBS", "0")
    with pytest.raises(ConfigurationError, match="MAX_JOBS='0'"):
        command.compute_num_jobs()


def test_configure_returns_nothing_and_configures(
    command: cmake_ext.cmake_build_ext, tools: Path
) -> None:
    command.configure(command.extensions[0])
    assert calls(tools)[0]["args"][0] == "-S"


def test_units_that_do_not_fit_stop_a_build_before_it_starts(
    command: cmake_ext.cmake_build_ext, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs(1, None, 1, (), "2 units of this build may take 12 GiB")
    monkeypatch.setattr(command, "_jobs", lambda _: jobs)
    with pytest.raises(ResourceError, match=r"may take 12 GiB: .*gemm-cpu"):
        command.run()
    assert calls(tools) == []


def test_a_build_from_beginning_to_end(
    command: cmake_ext.cmake_build_ext,
    tools: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    command.run()
    steps = [call["args"] for call in calls(tools)]
    assert [step[0] for step in steps] == ["-S", "--build", "--install"]
    assert steps[1][2:] == ["--parallel", "3"]
    assert steps[2][2:5] == ["--component", "vllm-kernels", "--prefix"]
    said = capfd.readouterr().err
    assert "device: cpu (VLLM_TARGET_DEVICE=cpu" in said
    assert "jobs: 3 (" in said
    outputs = [
        Path(name).relative_to(tmp_path / "lib").as_posix() for name in command.get_outputs()
    ]
    assert outputs == ["vllm/_C.abi3.so", "vllm/_build_info/vllm-kernels.json"]
    record = json.loads((tmp_path / "lib" / outputs[1]).read_text(encoding="utf-8"))
    assert record["extensions"][0]["name"] == "vllm._C"
    assert (record["device"], record["python_abi"], record["torch_target"]) == (
        "cpu",
        "abi3",
        "2.11",
    )
    assert record["kernel_digest"] == tree_digests.kernel_digest(
        paths.source_root(), "vllm-kernels"
    )
    assert command.get_output_mapping() == {}
    # Libraries that passed their checks are not checked again.
    command.build_extensions()
    assert "ops not compared" not in capfd.readouterr().err


def test_verbose_shows_commands(
    command: cmake_ext.cmake_build_ext, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERBOSE", "1")
    command.run()
    assert calls(tools)[1]["args"][-1] == "--verbose"


def test_a_second_build_in_the_same_folder_is_refused(
    command: cmake_ext.cmake_build_ext, tmp_path: Path
) -> None:
    command.build_extensions()
    with (
        locks.exclusive(tmp_path / "build" / "cpu-abi3-relwithdebinfo", "x"),
        pytest.raises(BusyError, match="this build folder"),
    ):
        command.build_extensions()


def test_an_announced_digest(
    command: cmake_ext.cmake_build_ext, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_KERNEL_DIGEST", "0" * 12)
    with pytest.raises(IntegrityError, match="but the caller announced 000000000000"):
        command.run()
    assert calls(tools) == []
    monkeypatch.setenv(
        "VLLM_KERNEL_DIGEST",
        tree_digests.kernel_digest(paths.source_root(), "vllm-kernels")[: tree_digests.SHORT],
    )
    command.build_extensions()


@pytest.mark.parametrize(
    ("trouble", "words"),
    [("links-nothing", "the build did not create"), ("installs-nothing", "CMake did not install")],
)
def test_a_library_that_is_not_there(
    command: cmake_ext.cmake_build_ext, tools: Path, trouble: str, words: str
) -> None:
    (tools / trouble).touch()
    with pytest.raises(BuildError, match=words):
        command.run()


def test_a_library_that_fails_an_audit(
    command: cmake_ext.cmake_build_ext,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    findings = (
        library_audit.Finding("_C.abi3.so", "abi3audit", good=True, text=""),
        library_audit.Finding("_C.abi3.so", "other", good=False, text="uses Py_X"),
    )
    monkeypatch.setattr(library_audit, "where_installed", lambda *_, **__: findings)
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
    command: cmake_ext.cmake_build_ext, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.run()
    tree = tmp_path / "tree"
    shutil.copytree(root / "csrc", tree / "csrc")
    (tree / "vllm" / "_build_info").mkdir(parents=True)
    (tree / "vllm" / "_moe_C.abi3.so").write_text("of a CUDA build", encoding="utf-8")
    (tree / "vllm" / "_build_info" / "vllm-flashmla.json").touch()
    monkeypatch.setattr(paths, "source_root", lambda: tree)
    command.inplace = True
    assert command.get_output_mapping() == {
        str(tmp_path / "lib" / name): str(tree / name)
        for name in ("vllm/_C.abi3.so", "vllm/_build_info/vllm-kernels.json")
    }
    command.copy_extensions_to_source()
    present = sorted(
        p.relative_to(tree).as_posix() for p in (tree / "vllm").rglob("*") if p.is_file()
    )
    assert present == ["vllm/_C.abi3.so", "vllm/_build_info/vllm-kernels.json"]
    before = (tree / "vllm" / "_C.abi3.so").stat().st_ino
    command.copy_extensions_to_source()
    assert (tree / "vllm" / "_C.abi3.so").stat().st_ino == before, (
        "the same content is not written again"
    )


def test_the_compiler_that_cmake_found(tmp_path: Path) -> None:
    assert build_info.compiler_of(tmp_path) == {}
    folder = tmp_path / "CMakeFiles" / "4.4.4"
    folder.mkdir(parents=True)
    text = 'set(CMAKE_CXX_COMPILER_ID "GNU")\nset(CMAKE_CXX_COMPILER_VERSION "12.2.0")\n'
    (folder / "CMakeCXXCompiler.cmake").write_text(text, encoding="utf-8")
    assert build_info.compiler_of(tmp_path) == {"id": "GNU", "version": "12.2.0"}
