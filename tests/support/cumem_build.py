# SPDX-License-Identifier: Apache-2.0
"""Compiles the memory allocator and replacements for drivers, and runs programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from vllm_build.kernels import kernels_table

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
#: Device -> the library that replaces its driver, and the folder of its source in tests/data.
DRIVERS = {"cuda": ("libcuda.so.1", "fake_cuda"), "rocm": ("libamdhip64.so.7", "fake_hip")}
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


def sources(device: str) -> list[Path]:
    """The allocator's units for a device, as the table of kernels says."""
    table = kernels_table.load(ROOT)
    name = "vllm.cumem_allocator"
    own = next(extension.sources for extension in table.extensions if extension.name == name)
    kernels = [k for k in table.kernels if k.extension == name and device in k.devices]
    return [ROOT / unit for unit in (*own, *(unit for k in kernels for unit in k.sources))]


def build_driver(folder: Path, *definitions: str, device: str = "cuda") -> Path:
    """Compile the replacement of a driver; return its folder, for ``LD_LIBRARY_PATH``."""
    folder.mkdir(parents=True, exist_ok=True)
    library, source = DRIVERS[device]
    command = [
        *_compiler("CC", "cc", "gcc", "clang"),
        "-O1",
        "-shared",
        "-fPIC",
        f"-Wl,-soname,{library}",
        "-pthread",
    ]
    unit = ROOT / "tests" / "data" / source / f"{library.split('.', maxsplit=1)[0]}.c"
    subprocess.run([*command, *definitions, str(unit), "-o", str(folder / library)], check=True)
    return folder


def build_site(folder: Path, device: str = "cuda") -> Path:
    """Make a folder with the package ``vllm`` and a device's allocator, compiled as CMake does it.

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
        f"-DVLLM_DEVICE_{device.upper()}",
        "-DVLLM_MODULE_NAME=cumem_allocator",
        *limited,
    ]
    command += [
        "-shared",
        f"-Wl,--version-script={ROOT / 'cmake' / 'exports.map'}",
        *map(str, sources(device)),
        "-ldl",
    ]
    subprocess.run(
        [*command, "-o", str(folder / "vllm" / f"cumem_allocator{'.abi3' if limited else ''}.so")],
        check=True,
    )
    return folder


#: Builds that tests of all modules share, by kind and device.
_built: dict[tuple[str, str], Path] = {}


@pytest.fixture(name="device")
def one_device() -> str:
    """The device that a test is for. A module that tests several has a fixture of its own."""
    return "cuda"


@pytest.fixture(name="site")
def allocator_site(tmp_path_factory: pytest.TempPathFactory, device: str) -> Path:
    """The folder of :func:`build_site`, built once for all tests."""
    if ("site", device) not in _built:
        _built["site", device] = build_site(tmp_path_factory.mktemp("site"), device)
    return _built["site", device]


@pytest.fixture(name="driver")
def counting_driver(tmp_path_factory: pytest.TempPathFactory, device: str) -> Path:
    """The folder of :func:`build_driver`, built once for all tests."""
    if ("driver", device) not in _built:
        _built["driver", device] = build_driver(tmp_path_factory.mktemp("driver"), device=device)
    return _built["driver", device]


def run(site: Path, driver: Path | None, code: str, **environ: str) -> str:
    """Run a program after the definitions of ``cumem_child``, and return its output.

    The program must succeed.
    """
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FAKE_GPU_", "PYTORCH_", "VLLM_SLEEP_"))
    }
    if driver is not None:
        env["LD_LIBRARY_PATH"] = str(driver)
        env["FAKE_GPU_LIBRARY"] = next(driver.iterdir()).name
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
