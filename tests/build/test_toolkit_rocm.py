# SPDX-License-Identifier: Apache-2.0
"""ROCm in every known layout, made of small shell scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version

from vllm_build.native import toolkit_variables
from vllm_build.settings.build_settings import Settings
from vllm_build.target.toolkits import (
    rocm_toolkit,
    toolkit_finder,
)
from vllm_build.util.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("bare")


def rocm_of(**variables: Any) -> toolkit_finder.Toolkit:
    found = toolkit_finder.find_rocm(Settings(**variables))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("field", "name"), [("rocm_home", "ROCM_HOME"), ("rocm_path", "ROCM_PATH")]
)
def test_rocm_by_variable(
    tmp_path: Path, hipcc: Callable[..., Path], field: str, name: str
) -> None:
    hipcc(tmp_path, "6.4.43483")
    found = rocm_of(**{field: tmp_path})
    assert (found.version, found.root) == (Version("6.4.43483"), tmp_path)
    assert found.reason == f"{name}={tmp_path}"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("version", "6.4.1-83\n", "6.4.1"),
        ("version", "7.1.0", "7.1.0"),
        ("version-rocm", "5.7.0-63", "5.7.0"),
        ("version", "unknown", "6.4.43483"),
        ("version", "", "6.4.43483"),
    ],
)
def test_rocm_release_is_the_recorded_one(
    tmp_path: Path, hipcc: Callable[..., Path], name: str, text: str, expected: str
) -> None:
    hipcc(tmp_path)
    (tmp_path / ".info").mkdir()
    (tmp_path / ".info" / name).write_text(text, encoding="utf-8")
    assert rocm_of(rocm_home=tmp_path).version == Version(expected)


def test_rocm_record_that_is_no_text(tmp_path: Path, hipcc: Callable[..., Path]) -> None:
    hipcc(tmp_path)
    (tmp_path / ".info").mkdir()
    (tmp_path / ".info" / "version").write_bytes(b"\xff\xfe")
    assert rocm_of(rocm_home=tmp_path).version == Version("6.4.43483")


def test_rocm_behind_a_link(tmp_path: Path, hipcc: Callable[..., Path]) -> None:
    real = hipcc(tmp_path / "rocm-6.4.1", "nothing")
    (tmp_path / "rocm-6.4.1" / ".info").mkdir()
    (tmp_path / "rocm-6.4.1" / ".info" / "version").write_text("6.4.1-83", encoding="utf-8")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "hipcc").symlink_to(real)
    found = rocm_of(search_path=str(tmp_path / "bin"))
    assert (found.root, found.version, found.compiler) == (
        tmp_path / "rocm-6.4.1",
        Version("6.4.1"),
        tmp_path / "bin" / "hipcc",
    )


def test_rocm_order(tmp_path: Path, bare: Path, hipcc: Callable[..., Path]) -> None:
    hipcc(rocm_toolkit.USUAL, "6.0.0")
    assert "the usual place" in rocm_of().reason
    hipcc(bare / "_rocm_sdk_devel", "6.1.0")
    assert "wheels" in rocm_of().reason
    hipcc(tmp_path / "conda", "6.2.0")
    assert "CONDA_PREFIX" in rocm_of(conda_prefix=tmp_path / "conda").reason
    hipcc(tmp_path / "path", "6.3.0")
    found = rocm_of(conda_prefix=tmp_path / "conda", search_path=str(tmp_path / "path" / "bin"))
    assert (found.version, found.reason) == (Version("6.3.0"), "hipcc on PATH")


@pytest.mark.parametrize(("version", "good"), [("5.6.9", False), ("5.7.0", True), ("7.10.0", True)])
def test_rocm_floor(
    tmp_path: Path, hipcc: Callable[..., Path], version: str, *, good: bool
) -> None:
    hipcc(tmp_path, version)
    if good:
        assert rocm_of(rocm_home=tmp_path).version == Version(version)
    else:
        with pytest.raises(ToolchainError, match="too old"):
            rocm_of(rocm_home=tmp_path)


TARGETS = "  Registered Targets:\n    amdgcn     - AMD GCN GPUs\n    x86-64     - 64-bit X86"


def clang(path: Path, targets: str = TARGETS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # printf is built into the shell: the tests have no PATH.
    path.write_text(f"#!/bin/sh\nprintf '%s\\n' '{targets}'\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def record(root: Path, release: str) -> None:
    (root / ".info").mkdir(parents=True, exist_ok=True)
    (root / ".info" / "version").write_text(f"{release}\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("release", "programs", "expected"),
    [
        ("5.7.1-98", ["bin/hipcc", "llvm/bin/clang++"], "llvm/bin/clang++"),
        ("6.4.1-83", ["bin/hipcc", "bin/amdclang++", "llvm/bin/clang++"], "bin/amdclang++"),
        ("7.2.0-43", ["bin/hipcc", "bin/amdclang++", "lib/llvm/bin/clang++"], "bin/amdclang++"),
        ("7.2.0-43", ["bin/amdclang++"], "bin/amdclang++"),
        ("7.2.0-43", ["lib/llvm/bin/clang++"], "lib/llvm/bin/clang++"),
    ],
    ids=["5.7", "6.4", "7.2", "without hipcc", "clang alone"],
)
def test_the_clang_of_each_layout(
    tmp_path: Path, release: str, programs: list[str], expected: str
) -> None:
    record(tmp_path, release)
    for program in programs:
        clang(tmp_path / program)
    found = rocm_of(rocm_home=tmp_path)
    assert (found.root, str(found.version)) == (tmp_path, release.partition("-")[0])
    assert rocm_toolkit.find_clang(found, "") == tmp_path / expected


def test_a_conda_environment_without_hipcc(tmp_path: Path) -> None:
    path = clang(tmp_path / "bin" / "x86_64-conda-linux-gnu-clang++")
    assert toolkit_finder.find_rocm(Settings(conda_prefix=tmp_path)) is None, "a clang for hosts"
    (tmp_path / "share" / "hip").mkdir(parents=True)
    (tmp_path / "share" / "hip" / "version").touch()
    with pytest.raises(ToolchainError, match="does not record a release of ROCm"):
        rocm_of(conda_prefix=tmp_path)
    record(tmp_path, "7.2.4")
    found = rocm_of(conda_prefix=tmp_path)
    assert (found.root, found.compiler, str(found.version)) == (tmp_path, path, "7.2.4")
    assert rocm_toolkit.find_clang(found, "") == path


def test_a_clang_without_amd_gpus(tmp_path: Path) -> None:
    record(tmp_path, "7.2.0")
    path = clang(tmp_path / "llvm" / "bin" / "clang++", "  Registered Targets:\n    x86 - X86")
    with pytest.raises(ToolchainError, match="cannot compile for AMD GPUs") as caught:
        rocm_toolkit.find_clang(rocm_of(rocm_home=tmp_path), "")
    assert str(path) in str(caught.value)


def test_a_rocm_without_clang(tmp_path: Path, hipcc: Callable[..., Path]) -> None:
    hipcc(tmp_path, "6.4.43483")
    with pytest.raises(ToolchainError, match="has no clang") as caught:
        rocm_toolkit.find_clang(rocm_of(rocm_home=tmp_path), "")
    assert "amdclang++" in str(caught.value.expected)
    assert "HIPCXX" in str(caught.value.remedy)


def test_a_clang_elsewhere_is_looked_for_on_the_path_of_the_build(
    tmp_path: Path, hipcc: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hipcc(tmp_path / "rocm", "6.4.43483")
    own = clang(tmp_path / "own" / "amdclang++")
    monkeypatch.setenv("PATH", str(clang(tmp_path / "other" / "amdclang++").parent))
    found = rocm_of(rocm_home=tmp_path / "rocm")
    assert rocm_toolkit.find_clang(found, str(own.parent)) == own
    with pytest.raises(ToolchainError, match="has no clang"):
        rocm_toolkit.find_clang(found, str(tmp_path))


@pytest.mark.parametrize("name", ["amdclang++", "x86_64-conda-linux-gnu-clang++"])
def test_a_rocm_without_hipcc_whose_clang_is_on_path(tmp_path: Path, name: str) -> None:
    path = clang(tmp_path / "bin" / name)
    (tmp_path / "share" / "hip").mkdir(parents=True)
    (tmp_path / "share" / "hip" / "version").touch()
    record(tmp_path, "7.2.4")
    found = rocm_of(search_path=str(tmp_path / "bin"))
    assert (found.root, found.compiler, found.reason) == (tmp_path, path, f"{name} on PATH")


def test_a_conda_clang_on_path_without_hip_is_no_rocm(tmp_path: Path) -> None:
    clang(tmp_path / "bin" / "x86_64-conda-linux-gnu-clang++")
    assert toolkit_finder.find_rocm(Settings(search_path=str(tmp_path / "bin"))) is None


def test_hipcc_is_asked_once(tmp_path: Path) -> None:
    path = tmp_path / "bin" / "hipcc"
    path.parent.mkdir()
    path.write_text(
        f"#!/bin/sh\necho asked >> {tmp_path}/asked\necho 'HIP version: 6.4.43483'\n",
        encoding="utf-8",
    )
    path.chmod(0o755)
    assert rocm_of(rocm_home=tmp_path).version == Version("6.4.43483")
    assert (tmp_path / "asked").read_text(encoding="utf-8") == "asked\n"


def test_the_hipcc_of_nvidia(tmp_path: Path) -> None:
    clang(tmp_path / "bin" / "hipcc", "nvcc: NVIDIA (R) Cuda compiler driver\nrelease 12.9")
    with pytest.raises(ToolchainError, match="compiles for NVIDIA GPUs"):
        rocm_of(rocm_home=tmp_path)


def test_cmake_gets_the_clang_and_no_runtime(tmp_path: Path) -> None:
    record(tmp_path, "7.2.4")
    path = clang(tmp_path / "llvm" / "bin" / "clang++")
    found = rocm_of(rocm_home=tmp_path)
    told = toolkit_variables.of_rocm(found, Settings(inherited={"HIPFLAGS": "-O1"}))
    assert told == {
        "CMAKE_HIP_COMPILER": str(path),
        "CMAKE_HIP_COMPILER_ROCM_ROOT": str(tmp_path),
        "CMAKE_HIP_FLAGS": "-O1 --start-no-unused-arguments -no-hip-rt --end-no-unused-arguments",
        "CMAKE_HIP_PLATFORM": "amd",
    }
    chosen = toolkit_variables.of_rocm(found, Settings(inherited={"HIPCXX": "/mine/clang++"}))
    assert "CMAKE_HIP_COMPILER" not in chosen
