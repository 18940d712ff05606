# SPDX-License-Identifier: Apache-2.0
"""Compiles the memory allocator and a replacement for CUDA's driver, and runs programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
SOURCES = sorted((ROOT / "csrc" / "allocator").glob("*.cc"))
WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wconversion",
    "-Wno-sign-conversion",
    "-Wundef",
    "-Werror",
]


def _compiler(variable: str, *names: str) -> list[str]:
    for name in (os.environ.get(variable, ""), *names):
        if name and shutil.which(name):
            return [name]
    pytest.skip(f"no compiler: {', '.join(names)} are not on PATH")


def build_driver(folder: Path, *definitions: str) -> Path:
    """Compile ``libcuda.so.1``; return its folder, for ``LD_LIBRARY_PATH``."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        *_compiler("CC", "cc", "gcc", "clang"),
        "-O1",
        "-shared",
        "-fPIC",
        "-Wl,-soname,libcuda.so.1",
        "-pthread",
    ]
    source = ROOT / "tests" / "data" / "fake_cuda" / "libcuda.c"
    subprocess.run(
        [*command, *definitions, str(source), "-o", str(folder / "libcuda.so.1")], check=True
    )
    return folder


def build_site(folder: Path) -> Path:
    """Make a folder with the package ``vllm`` and the allocator, compiled as CMake does it.

    Only the optimisation differs.
    """
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").is_file():
        pytest.skip(f"{include} has no Python.h")
    shutil.copytree(
        ROOT / "vllm",
        folder / "vllm",
        ignore=shutil.ignore_patterns("*.so", "__pycache__", "_build_info", "_version.py"),
    )
    (folder / "vllm" / "_version.py").write_text('__version__ = "1.2.3+test"\n', encoding="utf-8")
    limited = [] if sysconfig.get_config_var("Py_GIL_DISABLED") else ["-DPy_LIMITED_API=0x030A0000"]
    command = [
        *_compiler("CXX", "c++", "g++", "clang++"),
        "-std=c++17",
        "-O1",
        "-g",
        "-fPIC",
        "-fvisibility=hidden",
        *WARNINGS,
    ]
    command += [
        f"-I{ROOT / 'csrc'}",
        "-isystem",
        str(include),
        "-DVLLM_MODULE_NAME=cumem_allocator",
        *limited,
    ]
    command += [
        "-shared",
        f"-Wl,--version-script={ROOT / 'cmake' / 'exports.map'}",
        *map(str, SOURCES),
        "-ldl",
    ]
    subprocess.run(
        [*command, "-o", str(folder / "vllm" / f"cumem_allocator{'.abi3' if limited else ''}.so")],
        check=True,
    )
    return folder


#: Builds that tests of all modules share.
_built: dict[str, Path] = {}


@pytest.fixture(name="site")
def allocator_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of :func:`build_site`, built once for all tests."""
    if "site" not in _built:
        _built["site"] = build_site(tmp_path_factory.mktemp("site"))
    return _built["site"]


@pytest.fixture(name="driver")
def counting_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of :func:`build_driver`, built once for all tests."""
    if "driver" not in _built:
        _built["driver"] = build_driver(tmp_path_factory.mktemp("driver"))
    return _built["driver"]


def run(site: Path, driver: Path | None, code: str, **environ: str) -> str:
    """Run a program after the definitions of ``cumem_child``, and return its output.

    The program must succeed.
    """
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FAKE_CUDA_", "PYTORCH_"))
    }
    if driver is not None:
        env["LD_LIBRARY_PATH"] = str(driver)
    start = (
        f"import sys; sys.path[:0] = [{str(site)!r}, {str(SUPPORT)!r}]\nfrom cumem_child import *\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-X", "faulthandler", "-c", start + code],
        env={**env, **environ},
        cwd=site,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout
