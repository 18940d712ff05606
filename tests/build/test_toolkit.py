# SPDX-License-Identifier: Apache-2.0
"""Missing and broken toolkits; small shell scripts replace the compilers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version

from vllm_build.settings.build_settings import Settings
from vllm_build.target.toolkits import (
    cuda_toolkit,
    toolkit_finder,
    toolkit_search,
)
from vllm_build.util.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("bare")


def test_nothing_is_found_where_nothing_is() -> None:
    for finder in toolkit_finder.FINDERS.values():
        assert finder(Settings()) is None


@pytest.mark.parametrize(
    ("field", "name", "compiler", "finder"),
    [
        ("cuda_home", "CUDA_HOME", "nvcc", toolkit_finder.find_cuda),
        ("cuda_path", "CUDA_PATH", "nvcc", toolkit_finder.find_cuda),
        ("rocm_home", "ROCM_HOME", "hipcc", toolkit_finder.find_rocm),
        ("rocm_path", "ROCM_PATH", "hipcc", toolkit_finder.find_rocm),
        ("sycl_home", "CMPLR_ROOT", "icpx", toolkit_finder.find_sycl),
    ],
)
def test_variable_that_names_no_toolkit(
    tmp_path: Path,
    field: str,
    name: str,
    compiler: str,
    finder: Callable[[Settings], toolkit_finder.Toolkit | None],
) -> None:
    with pytest.raises(ToolchainError, match=f"{name}=.* does not exist"):
        finder(Settings(**{field: tmp_path / "absent"}))  # type: ignore[arg-type]
    with pytest.raises(ToolchainError, match=f"{name}=.* has no bin/{compiler}") as caught:
        finder(Settings(**{field: tmp_path}))  # type: ignore[arg-type]
    assert name in str(caught.value.remedy)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / compiler).write_text("not executable", encoding="utf-8")
    with pytest.raises(ToolchainError, match="can be run"):
        finder(Settings(**{field: tmp_path}))  # type: ignore[arg-type]


BREAKAGES = [
    ({"stdout": "", "status": 1}, "failed with status 1; it said: nothing"),
    (
        {"stdout": "", "stderr": "no license\ntoday", "status": 1},
        "failed with status 1; it said: today",
    ),
    ({"stdout": "release the kraken"}, "printed no version; it said: release the kraken"),
    ({"stdout": ""}, "printed no version; it said: nothing"),
    ({"stdout": "x" * 1000}, "printed no version; it said: " + "x" * 200),
]


@pytest.mark.parametrize(("behaviour", "message"), BREAKAGES)
@pytest.mark.parametrize("compiler", ["nvcc", "hipcc", "icpx"])
def test_broken_compiler(
    tmp_path: Path,
    program: Callable[..., Path],
    compiler: str,
    behaviour: dict[str, Any],
    message: str,
) -> None:
    path = program(tmp_path / compiler, **behaviour)
    finder = {
        "nvcc": toolkit_finder.find_cuda,
        "hipcc": toolkit_finder.find_rocm,
        "icpx": toolkit_finder.find_sycl,
    }[compiler]
    with pytest.raises(ToolchainError, match=re.escape(f"{path} --version {message}")) as caught:
        finder(Settings(search_path=str(tmp_path)))
    assert "VLLM_TARGET_DEVICE=cpu" in str(caught.value.remedy)
    assert re.search("CUDA_HOME|ROCM_HOME|CMPLR_ROOT", str(caught.value.remedy))


def test_compiler_of_another_machine(tmp_path: Path) -> None:
    path = tmp_path / "nvcc"
    path.write_bytes(b"\x7fELF nothing of this machine")
    path.chmod(0o755)
    with pytest.raises(ToolchainError, match="cannot be run: Exec format error"):
        toolkit_finder.find_cuda(Settings(search_path=str(tmp_path)))


def test_compiler_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "nvcc"
    path.write_text("#!/bin/sh\nexec /bin/sleep 600\n", encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setattr(toolkit_search, "TIMEOUT", 0.2)
    with pytest.raises(ToolchainError, match="did not answer"):
        toolkit_finder.find_cuda(Settings(search_path=str(tmp_path)))


def test_find_by_device(tmp_path: Path, nvcc: Callable[..., Path]) -> None:
    nvcc(tmp_path)
    settings = Settings(cuda_home=tmp_path)
    assert toolkit_finder.find("cpu", settings) is None
    assert (
        toolkit_finder.find("cuda", settings)
        == toolkit_finder.find_cuda(settings)
        == toolkit_finder.require("cuda", settings)
    )
    assert toolkit_finder.nvcc_cuda_version(settings) == Version("12.9")


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda", "searched CUDA_HOME, CUDA_PATH, PATH, .* and NVIDIA's wheels for nvcc"),
        ("rocm", "searched ROCM_HOME, ROCM_PATH, PATH, .* and /opt/rocm for hipcc"),
        ("xpu", "searched CMPLR_ROOT, PATH, .* and /opt/intel/oneapi for icpx"),
    ],
)
def test_require_what_is_missing(device: str, words: str) -> None:
    with pytest.raises(ToolchainError, match=words) as caught:
        toolkit_finder.require(device, Settings())
    assert "VLLM_TARGET_DEVICE" in str(caught.value.remedy)


def test_nvcc_in_the_usual_place_is_a_hint(nvcc: Callable[..., Path]) -> None:
    nvcc(cuda_toolkit.USUAL)
    assert toolkit_finder.find_cuda(Settings()) is None
    with pytest.raises(ToolchainError) as caught:
        toolkit_finder.nvcc_cuda_version(Settings())
    assert f"CUDA_HOME={cuda_toolkit.USUAL}" in str(caught.value.remedy)


def test_folders_of_wheels_are_those_of_this_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    folders = toolkit_search.site_folders()
    assert Path(pytest.__file__).parents[1] in folders
    assert len(folders) == len(set(folders))
