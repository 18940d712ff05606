# SPDX-License-Identifier: Apache-2.0
"""ROCm in every known layout, made of small shell scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version

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
