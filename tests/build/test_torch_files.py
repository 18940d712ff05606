# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vllm_build.target import torch_files
from vllm_build.util.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def nothing_installed(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del bare
    monkeypatch.setattr("vllm_build.target.torch_files.importlib.util.find_spec", lambda _: None)


def libtorch(
    folder: Path, version: tuple[int, int, int] = (2, 11, 0), library: str = "libtorch_cpu.so"
) -> Path:
    header = folder / "include" / "torch" / "headeronly" / "version.h"
    header.parent.mkdir(parents=True)
    names = ("MAJOR", "MINOR", "PATCH")
    header.write_text(
        "".join(
            f"#define TORCH_VERSION_{name} {number}\n"
            for name, number in zip(names, version, strict=True)
        ),
        encoding="utf-8",
    )
    (folder / "lib").mkdir()
    (folder / "lib" / library).write_bytes(b"")
    return folder


def test_libtorch_in_a_prefix(tmp_path: Path) -> None:
    prefix = libtorch(tmp_path / "env", (2, 13, 1))
    found = torch_files.find(prefix)
    assert (found.include, found.library, found.version) == (
        prefix / "include",
        prefix / "lib" / "libtorch_cpu.so",
        "2.13.1",
    )
    assert str(prefix) in found.origin


def test_torch_in_site_packages(bare: Path, tmp_path: Path, torch: Callable[..., Path]) -> None:
    package = torch(bare, "2.11.0+cpu")
    libtorch(package)
    assert torch_files.find(tmp_path).include == package / "include"


def test_prefix_comes_first(bare: Path, tmp_path: Path, torch: Callable[..., Path]) -> None:
    libtorch(torch(bare, "2.11.0+cpu"))
    prefix = libtorch(tmp_path / "env", (2, 12, 0))
    assert torch_files.find(prefix).version == "2.12.0"


@pytest.mark.parametrize("missing", ["include", "lib"])
def test_half_a_torch_is_none(tmp_path: Path, missing: str) -> None:
    prefix = libtorch(tmp_path / "env")
    (prefix / missing).rename(prefix / "elsewhere")
    with pytest.raises(ToolchainError, match="headers were not found") as caught:
        torch_files.find(prefix)
    assert str(prefix / "include") in caught.value.message
    assert "pip install" in str(caught.value.remedy)


def test_torch_is_too_old(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"2\.10\.0"):
        torch_files.find(libtorch(tmp_path / "env", (2, 10, 0)))
