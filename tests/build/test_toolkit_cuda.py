# SPDX-License-Identifier: Apache-2.0
"""CUDA in every known layout, made of small shell scripts; also the real nvcc if there is one."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from packaging.version import Version

from vllm_build.settings.build_settings import Settings
from vllm_build.target.toolkits import (
    toolkit_finder,
    toolkit_search,
)
from vllm_build.util.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("bare")


TARGETS = ["targets/x86_64-linux", "targets/sbsa-linux"]


def headers(root: Path) -> Path:
    path = root / "include" / "cuda_runtime.h"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("", encoding="utf-8")
    return root


def cuda_of(**variables: Any) -> toolkit_finder.Toolkit:
    found = toolkit_finder.find_cuda(Settings(**variables))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("field", "name"), [("cuda_home", "CUDA_HOME"), ("cuda_path", "CUDA_PATH")]
)
def test_cuda_by_variable(tmp_path: Path, nvcc: Callable[..., Path], field: str, name: str) -> None:
    compiler = nvcc(headers(tmp_path / "cuda"), "12.10")
    found = cuda_of(**{field: tmp_path / "cuda"})
    assert found == toolkit_finder.Toolkit(
        "cuda", Version("12.10"), tmp_path / "cuda", compiler, f"{name}={tmp_path / 'cuda'}"
    )
    assert str(found) == f"CUDA 12.10 in {tmp_path / 'cuda'} ({name}={tmp_path / 'cuda'})"


def test_cuda_order(tmp_path: Path, bare: Path, nvcc: Callable[..., Path]) -> None:
    nvcc(bare / "nvidia" / "cu13", "13.0")
    everything: dict[str, Any] = {}
    assert cuda_of(**everything).version == Version("13.0")
    nvcc(tmp_path / "conda", "12.6")
    headers(tmp_path / "conda" / TARGETS[0])
    everything["conda_prefix"] = tmp_path / "conda"
    assert cuda_of(**everything).version == Version("12.6")
    nvcc(tmp_path / "host", "12.7")
    headers(tmp_path / "host" / TARGETS[0])
    everything["host_prefix"] = tmp_path / "host"
    assert cuda_of(**everything).version == Version("12.7")
    nvcc(tmp_path / "path", "12.4")
    everything["search_path"] = str(tmp_path / "path" / "bin")
    assert cuda_of(**everything).version == Version("12.4")
    nvcc(tmp_path / "second", "12.2")
    everything["cuda_path"] = tmp_path / "second"
    assert cuda_of(**everything).version == Version("12.2")
    nvcc(tmp_path / "first", "12.1")
    everything["cuda_home"] = tmp_path / "first"
    assert cuda_of(**everything).version == Version("12.1")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("prefix", ["conda_prefix", "host_prefix", "build_prefix"])
def test_cuda_in_a_conda_prefix(
    tmp_path: Path, nvcc: Callable[..., Path], target: str, prefix: str
) -> None:
    nvcc(tmp_path)
    headers(tmp_path / target)
    found = cuda_of(**{prefix: tmp_path})
    assert found.root == tmp_path / target
    assert found.compiler == tmp_path / "bin" / "nvcc"
    assert prefix.replace("host_prefix", "PREFIX").upper() in found.reason


@pytest.mark.parametrize("target", TARGETS)
def test_cuda_home_may_name_the_target_of_a_conda_prefix(
    tmp_path: Path, nvcc: Callable[..., Path], target: str
) -> None:
    nvcc(tmp_path)
    headers(tmp_path / target)
    found = cuda_of(cuda_home=tmp_path / target)
    assert (found.root, found.compiler) == (tmp_path / target, tmp_path / "bin" / "nvcc")


def test_conda_build_has_nvcc_and_headers_in_two_environments(
    tmp_path: Path, nvcc: Callable[..., Path]
) -> None:
    nvcc(tmp_path / "build")
    (tmp_path / "build" / TARGETS[0]).mkdir(parents=True)
    headers(tmp_path / "host" / TARGETS[0])
    found = cuda_of(build_prefix=tmp_path / "build", host_prefix=tmp_path / "host")
    assert found.root == tmp_path / "host" / TARGETS[0]
    assert found.compiler == tmp_path / "build" / "bin" / "nvcc"
    shutil.rmtree(tmp_path / "host")
    assert (
        cuda_of(build_prefix=tmp_path / "build", host_prefix=tmp_path / "host").root
        == tmp_path / "build"
    )


def test_cuda_below_the_target_of_a_conda_prefix(tmp_path: Path, nvcc: Callable[..., Path]) -> None:
    nvcc(headers(tmp_path / TARGETS[1]))
    assert cuda_of(conda_prefix=tmp_path).root == tmp_path / TARGETS[1]


def test_prefix_without_cuda_is_passed_over(tmp_path: Path, nvcc: Callable[..., Path]) -> None:
    nvcc(tmp_path)  # PREFIX may be a variable of make, such as PREFIX=/usr
    assert toolkit_finder.find_cuda(Settings(host_prefix=tmp_path)) is None


def test_environment_of_the_interpreter(
    tmp_path: Path, nvcc: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvcc(tmp_path)
    headers(tmp_path / TARGETS[0])
    monkeypatch.setattr(toolkit_search.sys, "prefix", str(tmp_path))
    assert toolkit_finder.find_cuda(Settings()) is None
    (tmp_path / "conda-meta").mkdir()
    assert "this interpreter's environment" in cuda_of().reason


@pytest.mark.parametrize("folder", ["cu13", "cuda_nvcc"])
def test_cuda_in_wheels(bare: Path, nvcc: Callable[..., Path], folder: str) -> None:
    nvcc(headers(bare / "nvidia" / folder), "13.0")
    found = cuda_of()
    assert found.root == bare / "nvidia" / folder
    assert "NVIDIA's wheels" in found.reason


def test_newest_wheel_wins(bare: Path, nvcc: Callable[..., Path]) -> None:
    for name in ("cu13", "cu14", "cuda_nvcc"):
        nvcc(bare / "nvidia" / name, {"cu13": "13.0", "cu14": "14.1"}.get(name, "12.9"))
    assert cuda_of().version == Version("14.1")


def test_wheel_without_nvcc_is_none(bare: Path, program: Callable[..., Path]) -> None:
    program(bare / "nvidia" / "cuda_nvcc" / "bin" / "ptxas")
    assert toolkit_finder.find_cuda(Settings()) is None


def test_link_into_the_toolkit(tmp_path: Path, nvcc: Callable[..., Path]) -> None:
    real = nvcc(headers(tmp_path / "cuda-12.9"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").symlink_to(real)
    found = cuda_of(search_path=str(tmp_path / "bin"))
    assert found.root == tmp_path / "cuda-12.9"
    assert found.compiler == tmp_path / "bin" / "nvcc"


def test_wrapper_script_is_asked_for_its_toolkit(tmp_path: Path) -> None:
    headers(tmp_path / "cuda-12.9")
    script = tmp_path / "bin" / "nvcc"
    script.parent.mkdir()
    script.write_text(
        '#!/bin/sh\ncase "$1" in --version) echo "Cuda compilation tools, release 12.9, '
        'V12.9.41";;\n'
        f"--dryrun) echo '#$ TOP={tmp_path}/cuda-12.9/bin/..' >&2;; esac\n",
        encoding="utf-8",
    )
    script.chmod(0o755)
    assert cuda_of(search_path=str(script.parent)).root == tmp_path / "cuda-12.9"


def test_without_headers_the_folder_above_bin(tmp_path: Path, nvcc: Callable[..., Path]) -> None:
    nvcc(tmp_path / "cuda")
    assert cuda_of(cuda_home=tmp_path / "cuda").root == tmp_path / "cuda"


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\r")))
@hypothesis_settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_output_of_nvcc(tmp_path: Path, program: Callable[..., Path], said: str) -> None:
    program(tmp_path / "nvcc", said)
    try:
        found = toolkit_finder.find_cuda(Settings(search_path=str(tmp_path)))
    except ToolchainError:
        return
    assert found is not None
    assert f"release {found.version}" in said


@pytest.mark.parametrize(
    ("release", "good"),
    [("11.7", False), ("11.8", True), ("11.10", True), ("9.2", False), ("13.0", True)],
)
def test_cuda_floor(tmp_path: Path, nvcc: Callable[..., Path], release: str, *, good: bool) -> None:
    nvcc(tmp_path, release)
    if good:
        assert cuda_of(cuda_home=tmp_path).version == Version(release)
    else:
        with pytest.raises(ToolchainError, match="too old"):
            cuda_of(cuda_home=tmp_path)


def test_nvcc_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc on PATH")
    found = toolkit_finder.find_cuda(Settings.from_environ(os.environ))
    assert found is not None
    assert found.version >= Version("11.8")
    assert (found.root / "include" / "cuda_runtime.h").is_file()
