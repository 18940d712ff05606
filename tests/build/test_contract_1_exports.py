# SPDX-License-Identifier: Apache-2.0
"""Section 1 of the build contract: what setup.py exports."""

from __future__ import annotations

import importlib.util
import inspect
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from packaging.version import Version
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext

from vllm_build.util.errors import ConfigurationError, ToolchainError
from vllm_build.wheels import cmake_ext

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from tests.build.conftest import Program


@pytest.fixture
def exported(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("vllm_setup", root / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_names(exported: ModuleType) -> None:
    assert sorted(exported.__all__) == [
        "CMakeExtension",
        "cmake_build_ext",
        "get_nvcc_cuda_version",
        "get_requirements",
        "get_vllm_version",
        "precompiled_build_ext",
    ]
    assert issubclass(exported.CMakeExtension, Extension)
    assert issubclass(exported.cmake_build_ext, build_ext)
    assert issubclass(exported.precompiled_build_ext, build_ext)


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        ("get_vllm_version", "() -> 'str'"),
        ("get_requirements", "() -> 'list[str]'"),
        ("get_nvcc_cuda_version", "() -> 'Version'"),
        ("cmake_build_ext.configure", "(self, ext: 'CMakeExtension') -> 'None'"),
        ("cmake_build_ext.build_extensions", "(self) -> 'None'"),
        ("cmake_build_ext.compute_num_jobs", "(self) -> 'tuple[int, int | None]'"),
    ],
)
def test_signatures(exported: ModuleType, name: str, signature: str) -> None:
    target: object = exported
    for part in name.split("."):
        target = getattr(target, part)
    assert callable(target)
    assert str(inspect.signature(target)) == signature


def test_importing_does_nothing(root: Path, tmp_path: Path) -> None:
    """Importing setup.py reads no setting, writes no file, runs no program, imports no torch."""
    code = (
        f"import runpy, sys; runpy.run_path({str(root / 'setup.py')!r}, run_name='imported'); "
        "print('torch' in sys.modules)"
    )
    env = {
        "PATH": "",
        "MAX_JOBS": "many",
        "VLLM_TARGET_DEVICE": "toaster",
        "CUDA_HOME": "/nonexistent",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    version_file = root / "vllm" / "_version.py"
    before = version_file.stat().st_mtime_ns if version_file.exists() else None
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "False", "")
    assert list(tmp_path.iterdir()) == []
    assert (version_file.stat().st_mtime_ns if version_file.exists() else None) == before


def test_functions(
    exported: ModuleType, bare: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "empty")
    assert bare.is_dir()
    base = (root / "VERSION").read_text(encoding="utf-8").strip()
    assert exported.get_vllm_version() == f"{base}+empty"
    assert exported.get_requirements() == ["torch>=2.11"]


def test_nvcc_version(
    exported: ModuleType, bare: Path, nvcc: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ToolchainError, match="no toolkit for device cuda"):
        exported.get_nvcc_cuda_version()
    nvcc(tmp_path / "cuda", "12.9")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    assert bare.is_dir()
    assert exported.get_nvcc_cuda_version() == Version("12.9")


@pytest.mark.parametrize(
    ("environ", "status", "words"),
    [
        ({"VLLM_TARGET_DEVICE": "toaster"}, 2, "VLLM_TARGET_DEVICE='toaster'"),
        ({"MAX_JOBS": "0"}, 2, "MAX_JOBS='0'"),
        (
            {"VLLM_TARGET_DEVICE": "empty", "VLLM_VERSION_OVERRIDE": "not a version"},
            2,
            "VLLM_VERSION_OVERRIDE",
        ),
    ],
)
def test_a_wrong_environment_is_one_clear_message(
    root: Path, environ: dict[str, str], status: int, words: str
) -> None:
    env = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **environ}
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=root,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert words in done.stderr
    assert done.stderr.strip().startswith("error: ")
    assert "Traceback" not in done.stderr


def test_extension(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cmake_ext, "free_threaded", lambda: False)
    extension = cmake_ext.CMakeExtension("vllm._C", str(root / "csrc" / ".."))
    assert (extension.name, extension.sources, extension.cmake_lists_dir) == (
        "vllm._C",
        [],
        str(root),
    )
    assert extension.py_limited_api is True
    monkeypatch.setattr(cmake_ext, "free_threaded", lambda: True)
    assert cmake_ext.CMakeExtension("vllm._C").py_limited_api is False
    assert cmake_ext.CMakeExtension("vllm._C", py_limited_api=True).py_limited_api is True


def test_precompiled_refuses_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path, bare: Path
) -> None:
    assert bare.is_dir()
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path))
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    monkeypatch.setenv("VLLM_USE_PRECOMPILED", "1")
    extension = cmake_ext.CMakeExtension("vllm._C", str(root))
    command = cmake_ext.precompiled_build_ext(
        Distribution({"name": "vllm", "version": "1.0", "ext_modules": [extension]})
    )
    command.ensure_finalized()
    with pytest.raises(
        ConfigurationError,
        match=r"^VLLM_USE_PRECOMPILED is set, but no source of precompiled kernels",
    ) as caught:
        command.run()
    assert "VLLM_PRECOMPILED_STORES" in (caught.value.expected or "")
    assert "unset VLLM_USE_PRECOMPILED" in (caught.value.remedy or "")
