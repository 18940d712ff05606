# SPDX-License-Identifier: Apache-2.0
"""ROCm's memory allocator with the channel's real compiler and HIP's real headers.

This needs no GPU. The compiler and the headers are packages, which stay in the channel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from cumem_build import WARNINGS, sources

from vllm_build.conda.environments import conda_environment
from vllm_build.toolchain import channel_build
from vllm_build.util import paths
from vllm_build.util.console import Console

pytestmark = pytest.mark.slow
ROOT = paths.source_root()
ENTER = 'for script in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do . "$script"; done\n'


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with HIP's compiler."""
    found = tmp_path_factory.mktemp("rocm") / "env"
    report = channel_build.ensure(ROOT, Console(), ["hip-clang_linux-64"], inherited=os.environ)
    conda_environment.create(found, ["hip-clang_linux-64"], [report.url])
    return found


def run(prefix: Path, script: str, folder: Path) -> str:
    """Run a script in the activated environment and return its output."""
    done = subprocess.run(
        ["/bin/bash", "-euc", ENTER + script],
        cwd=folder,
        env=conda_environment.environ_of(prefix, os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_allocator_declares_the_runtime_as_hip_does(prefix: Path, tmp_path: Path) -> None:
    check = ROOT / "tests" / "data" / "fake_hip" / "check_runtime.cc"
    command = (
        '"$HIPCXX" -D__HIP_PLATFORM_AMD__ -std=c++17 -Wall -Wextra -Werror -fsyntax-only '
        f'-isystem "$ROCM_PATH/include" -I{ROOT / "csrc"} -I{ROOT / "tests" / "data"} '
    )
    run(prefix, f"{command} {check}", tmp_path)
    # The check can fail.
    wrong = tmp_path / "wrong.cc"
    wrong.write_text(
        check.read_text(encoding="utf-8").replace("(mine::kOutOfMemory,", "(mine::kDeinitialized,"),
        encoding="utf-8",
    )
    said = run(prefix, f"! {command} {wrong}", tmp_path)
    assert "static assertion failed" in said
    assert "hipErrorOutOfMemory" in said


def test_the_allocator_needs_nothing_of_hip(prefix: Path, tmp_path: Path) -> None:
    """The channel's clang compiles it, and Python imports it where no HIP runtime is."""
    headers = Path(sysconfig.get_path("include"))
    command = [
        *('"$HIPCXX"', "-std=c++17", "-O3", "-DNDEBUG", "-fPIC", "-fvisibility=hidden", *WARNINGS),
        *("-DVLLM_DEVICE_ROCM", "-DVLLM_MODULE_NAME=cumem_allocator"),
        *("-DPy_LIMITED_API=0x030A0000", "-isystem", str(headers)),
        # Debian's Python.h includes a file of the folder above.
        *("-idirafter", str(headers.parent)),
        *(f"-I{ROOT / 'csrc'}", "-shared", f"-Wl,--version-script={ROOT / 'cmake/exports.map'}"),
        *(*map(str, sources("rocm")), "-ldl", "-o", "cumem_allocator.abi3.so"),
    ]
    run(prefix, " ".join(command), tmp_path)
    needed = run(prefix, "llvm-readelf -d cumem_allocator.abi3.so", tmp_path)
    symbols = run(prefix, "llvm-readelf --dyn-syms cumem_allocator.abi3.so", tmp_path)
    assert "(NEEDED)" in needed
    assert "PyGILState_Ensure" in symbols
    assert "amdhip" not in needed
    assert "hip" not in symbols.lower()
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import cumem_allocator; print(cumem_allocator.python_create_and_map.__name__)"
    )
    imported = subprocess.run(
        [sys.executable, "-I", "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert imported.stdout == "python_create_and_map\n", imported.stderr
