# SPDX-License-Identifier: Apache-2.0
"""What the doctor says about the device, torch and toolkits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import doctor_facts
import pytest
from doctor_facts import named, problems

from vllm_build.doctor import examination
from vllm_build.doctor.fact import CONTRADICTION, MISSING, Fact
from vllm_build.util.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Examine = Callable[..., list[Fact]]


@pytest.fixture
def examine(
    bare: Path,
    tmp_path: Path,
    root: Path,
    program: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Examine:
    del bare
    return doctor_facts.examiner(root, tmp_path, program, monkeypatch)


def test_device_contradicts_torch(examine: Examine, bare: Path, torch: Callable[..., Path]) -> None:
    torch(bare, "2.11.0+cu130", cuda="13.0")
    facts = examine(VLLM_TARGET_DEVICE="rocm")
    assert problems(facts) == {"device": CONTRADICTION, "toolkit for rocm": MISSING}
    assert "built for cuda" in named(facts, "device").found


def test_torch_is_too_old(examine: Examine, bare: Path, torch: Callable[..., Path]) -> None:
    torch(bare, "2.10.1+cpu")
    facts = examine()
    assert problems(facts) == {"torch": CONTRADICTION}
    assert "2.11" in str(named(facts, "torch").remedy)


def test_torch_of_no_version(examine: Examine, bare: Path, torch: Callable[..., Path]) -> None:
    torch(bare, "strange", metadata="2.11")
    assert problems(examine()) == {}


def test_toolkit_of_the_device_is_missing(examine: Examine) -> None:
    facts = examine(VLLM_TARGET_DEVICE="xpu")
    assert problems(facts) == {"toolkit for xpu": MISSING, "kernels": MISSING}
    assert examination.exit_code(facts) == ToolchainError.exit_code


def test_broken_toolkit_stops_detection(
    examine: Examine, tmp_path: Path, program: Callable[..., Path]
) -> None:
    program(tmp_path / "tools" / "nvcc", "nonsense", status=1)
    facts = examine()
    assert problems(facts) == {"device": MISSING, "toolkit for cuda": MISSING}
    assert "failed with status 1" in named(facts, "device").found


def test_broken_toolkit_of_another_device_is_mentioned(
    examine: Examine, tmp_path: Path, program: Callable[..., Path]
) -> None:
    program(tmp_path / "tools" / "nvcc", "nonsense", status=1)
    facts = examine(VLLM_TARGET_DEVICE="cpu")
    assert problems(facts) == {}
    assert "not needed for cpu" in named(facts, "toolkit for cuda").found


def test_torch_and_toolkit_of_two_majors(
    examine: Examine,
    bare: Path,
    tmp_path: Path,
    torch: Callable[..., Path],
    nvcc: Callable[..., Path],
) -> None:
    torch(bare, "2.11.0+cu130", cuda="13.0")
    nvcc(tmp_path / "cuda", "12.9")
    facts = examine(CUDA_HOME=str(tmp_path / "cuda"))
    assert problems(facts)["torch and toolkit"] == CONTRADICTION
    assert "release 13" in str(named(facts, "torch and toolkit").remedy)


def test_torch_and_toolkit_of_one_major(
    examine: Examine,
    bare: Path,
    tmp_path: Path,
    torch: Callable[..., Path],
    nvcc: Callable[..., Path],
) -> None:
    torch(bare, "2.11.0+cu126", cuda="12.6")
    nvcc(tmp_path / "cuda", "12.9")
    assert "torch and toolkit" not in problems(examine(CUDA_HOME=str(tmp_path / "cuda")))


def test_home_and_path_disagree(
    examine: Examine, tmp_path: Path, nvcc: Callable[..., Path]
) -> None:
    nvcc(tmp_path / "home", "12.9")
    nvcc(tmp_path / "other", "12.4")
    facts = examine(
        CUDA_HOME=str(tmp_path / "home"),
        PATH=f"{tmp_path}/tools:{tmp_path}/other/bin",
        VLLM_TARGET_DEVICE="cuda",
    )
    assert problems(facts)["toolkit and PATH"] == CONTRADICTION
    assert str(tmp_path / "home" / "bin") in str(named(facts, "toolkit and PATH").remedy)


@pytest.mark.parametrize("behaviour", [{"status": 1}, {"stdout": "release 12.9, V12.9.1"}])
def test_home_and_path_do_not_disagree(
    examine: Examine,
    tmp_path: Path,
    nvcc: Callable[..., Path],
    program: Callable[..., Path],
    behaviour: dict[str, Any],
) -> None:
    nvcc(tmp_path / "home", "12.9")
    program(tmp_path / "other" / "nvcc", **behaviour)
    facts = examine(
        CUDA_HOME=str(tmp_path / "home"),
        PATH=f"{tmp_path}/tools:{tmp_path}/other",
        VLLM_TARGET_DEVICE="cuda",
    )
    assert "toolkit and PATH" not in problems(facts)


def test_two_homes(examine: Examine, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    assert (
        problems(
            examine(
                CUDA_HOME=str(tmp_path / "a"),
                CUDA_PATH=str(tmp_path / "link"),
                VLLM_TARGET_DEVICE="cpu",
            )
        )
        == {}
    )
    facts = examine(CUDA_PATH=str(tmp_path / "b"))
    assert problems(facts) == {"CUDA_HOME": CONTRADICTION}
    assert "unset CUDA_PATH" in str(named(facts, "CUDA_HOME").remedy)


def test_version_is_malformed(examine: Examine) -> None:
    facts = examine(VLLM_VERSION_OVERRIDE="one two")
    assert problems(facts) == {"variable": CONTRADICTION}
    assert "VLLM_VERSION_OVERRIDE" in named(facts, "variable").found


def test_architectures_are_malformed(
    examine: Examine, tmp_path: Path, nvcc: Callable[..., Path]
) -> None:
    nvcc(tmp_path / "cuda", "12.9")
    facts = examine(
        CUDA_HOME=str(tmp_path / "cuda"), TORCH_CUDA_ARCH_LIST="8,0", VLLM_TARGET_DEVICE="cuda"
    )
    assert problems(facts) == {"variable": CONTRADICTION}
    assert "TORCH_CUDA_ARCH_LIST" in named(facts, "variable").found
