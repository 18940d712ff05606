# SPDX-License-Identifier: Apache-2.0
"""Toolkits made of small shell scripts, in every layout that is known; the real nvcc where there is one."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from packaging.version import Version

from vllm_build.settings.build_settings import Settings
from vllm_build.target.toolkits import (
    cuda_toolkit,
    rocm_toolkit,
    sycl_toolkit,
    toolkit_finder,
    toolkit_search,
)
from vllm_build.util.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable

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


# Where CUDA is looked for


def test_nothing_is_found_where_nothing_is() -> None:
    for finder in toolkit_finder.FINDERS.values():
        assert finder(Settings()) is None


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
    nvcc(tmp_path)  # a `make` variable PREFIX=/usr is no conda environment
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


# What belongs to an nvcc


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


# What is wrong with a toolkit


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


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\r")))
@hypothesis_settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_nvcc_prints(tmp_path: Path, program: Callable[..., Path], said: str) -> None:
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


# ROCm


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


# SYCL


def test_sycl_order(tmp_path: Path, icpx: Callable[..., Path]) -> None:
    icpx(sycl_toolkit.USUAL / "compiler" / "2024.2", "2024.2.0")
    found = toolkit_finder.find_sycl(Settings())
    assert found is not None
    assert (found.kind, found.version, found.root) == (
        "sycl",
        Version("2024.2.0"),
        sycl_toolkit.USUAL / "compiler" / "2024.2",
    )
    one = tmp_path / "one"
    icpx(one / "compiler" / "2025.1")
    icpx(one / "compiler" / "2025.10", "2025.10.0")
    (one / "compiler" / "latest").symlink_to("2025.1")
    found = toolkit_finder.find_sycl(Settings(oneapi_root=one))
    assert found is not None
    assert found.version == Version("2025.10.0")
    icpx(tmp_path / "conda", "2025.2.0")
    found = toolkit_finder.find_sycl(Settings(oneapi_root=one, conda_prefix=tmp_path / "conda"))
    assert found is not None
    assert found.version == Version("2025.2.0")
    icpx(tmp_path / "path", "2025.3.0")
    found = toolkit_finder.find_sycl(
        Settings(conda_prefix=tmp_path / "conda", search_path=str(tmp_path / "path" / "bin"))
    )
    assert found is not None
    assert found.reason == "icpx on PATH"
    found = toolkit_finder.find_sycl(
        Settings(sycl_home=tmp_path / "conda", search_path=str(tmp_path / "path" / "bin"))
    )
    assert found is not None
    assert found.reason.startswith("CMPLR_ROOT=")


# find and require


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
    ("device", "words"), [("cuda", "nvcc"), ("rocm", "hipcc"), ("xpu", "icpx")]
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


# The real one


def test_nvcc_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc on PATH")
    found = toolkit_finder.find_cuda(Settings.from_environ(os.environ))
    assert found is not None
    assert found.version >= Version("11.8")
    assert (found.root / "include" / "cuda_runtime.h").is_file()
