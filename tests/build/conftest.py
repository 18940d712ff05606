# SPDX-License-Identifier: Apache-2.0
"""Fake toolkits and torch, made of shell scripts and files: tests of all rules need no hardware."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import sysconfig
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import fake_cmake
import pytest
from command_runs import MARK, marked
from login_server import LOGIN
from reuse_server import serving
from toolchain_tree import Tree

from vllm_build.checks import library_audit
from vllm_build.native import cmake, native_build
from vllm_build.target import torch_flavour
from vllm_build.target.toolkits import cuda_toolkit, rocm_toolkit, sycl_toolkit, toolkit_search
from vllm_build.util.processes import children, signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from reuse_server import Server

    from vllm_build.util.console import Console

    Program = Callable[..., Path]
    Torch = Callable[..., Path]

NVCC = (
    "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release {0}, V{0}.88\n"
    "Build cuda_{0}.r{0}/compiler.1_0"
)


@pytest.fixture
def program() -> Program:
    """Writes a program that prints ``stdout`` and exits with ``status``; returns its path."""

    def write(path: Path, stdout: str = "", *, status: int = 0, stderr: str = "") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            "#!/bin/sh",
            f"printf '%s\\n' {shlex.quote(stdout)}",
            f"printf '%s\\n' {shlex.quote(stderr)} >&2",
            f"exit {status}",
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def nvcc(program: Program) -> Program:
    """Writes an nvcc of a given release into a folder's ``bin``."""
    return lambda home, release="12.9": program(home / "bin" / "nvcc", NVCC.format(release))


@pytest.fixture
def hipcc(program: Program) -> Program:
    """Writes a hipcc of a given version into a folder's ``bin``."""
    return lambda home, version="6.4.43483": program(
        home / "bin" / "hipcc", f"HIP version: {version}-a187df25c\nAMD clang version 19.0.0"
    )


@pytest.fixture
def icpx(program: Program) -> Program:
    """Writes an icpx of a given version into a folder's ``bin``."""
    return lambda home, version="2025.1.0": program(
        home / "bin" / "icpx",
        f"Intel(R) oneAPI DPC++/C++ Compiler {version} ({version}.20250317)\n"
        "Target: x86_64-unknown-linux-gnu",
    )


@pytest.fixture
def torch() -> Torch:
    """Writes the files of a torch into a ``site-packages``.

    Importing this torch fails, because no part of a build may import torch.
    """

    def write(
        site: Path,
        version: str = "2.11.0",
        *,
        metadata: str | None = None,
        requires: tuple[str, ...] = (),
        **attributes: str,
    ) -> Path:
        package = site / "torch"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(
            "raise RuntimeError('torch was imported')\n", encoding="utf-8"
        )
        values: dict[str, str | None] = {"cuda": None, "hip": None, "xpu": None, **attributes}
        text = f"from typing import Optional\n__version__ = {version!r}\ndebug = False\n"
        text += "".join(f"{name}: Optional[str] = {value!r}\n" for name, value in values.items())
        (package / "version.py").write_text(text, encoding="utf-8")
        info = site / f"torch-{metadata or version}.dist-info"
        info.mkdir()
        lines = [
            "Metadata-Version: 2.1",
            "Name: torch",
            f"Version: {metadata or version}",
            *(f"Requires-Dist: {line}" for line in requires),
        ]
        (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return package

    return write


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Hides this machine's toolkits and torch; returns the folder used as ``site-packages``."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setattr(toolkit_search, "site_folders", lambda: [site])
    monkeypatch.setattr(
        torch_flavour,
        "_sites",
        lambda path: [Path(entry) for entry in path] if path is not None else [site],
    )
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "interpreter"))
    for module in (cuda_toolkit, rocm_toolkit, sycl_toolkit):
        monkeypatch.setattr(module, "USUAL", tmp_path / "usual" / module.__name__)
    for name in (
        "CUDA_HOME",
        "CUDA_PATH",
        "ROCM_HOME",
        "ROCM_PATH",
        "CMPLR_ROOT",
        "ONEAPI_ROOT",
        "CONDA_PREFIX",
        "PREFIX",
        "BUILD_PREFIX",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in (
        "VLLM_TARGET_DEVICE",
        "VLLM_VERSION_OVERRIDE",
        "VLLM_SKIP_VERSION_SUFFIX",
        "VLLM_USE_PRECOMPILED",
        "MAX_JOBS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert sysconfig.get_path("purelib") != str(site)
    return site


@pytest.fixture
def tools(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Program, torch: Torch
) -> Path:
    """Provides only a fake cmake, ninja, a compiler and torch's files.

    Returns:
        The folder in which the fake cmake records its calls.
    """
    here = fake_cmake.install(tmp_path / "path", bare, program, torch)
    monkeypatch.setattr(cmake.sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setattr(library_audit, "_CHECKS", {})
    monkeypatch.setattr(native_build.op_check, "require", lambda *_: "ops not compared")
    for name in list(os.environ):
        if name.startswith(("CMAKE", "CC", "CXX", "LDFLAGS", "NINJA", "VLLM", "HIGHWAY", "hwy")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VLLM_BUILD_ROOT", str(tmp_path / "build"))
    return here


@pytest.fixture
def toolchain_tree(tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A tree with locked packages and a separate cache."""
    made = Tree(tmp_path, console)
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(made.cache))
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.index))
    made.update()
    return made


@pytest.fixture
def hearing() -> Iterator[None]:
    """Lets signals act that this process was started to ignore, as by ``nohup``, during a test."""
    ignored = [number for number in signals.ENDING if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts the supervisor as a module with site-packages if the run measures coverage."""
    if any(name.startswith("COVERAGE_PROCESS") for name in os.environ):
        monkeypatch.setattr(
            children,
            "_SUPERVISOR",
            [sys.executable, "-I", "-B", "-m", "vllm_build.util.processes.supervisor"],
        )


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Marks the processes that the test starts; those that are left at the end are killed."""
    value = uuid.uuid4().hex
    monkeypatch.setenv(MARK, value)
    yield value
    for pid in marked(value):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def no_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hides this machine's netrc, cache and proxies."""
    monkeypatch.setenv("NETRC", str(tmp_path / "no-such-netrc"))
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def login_server() -> Iterator[Server]:
    """A server that asks for :data:`login_server.LOGIN`."""
    with serving() as running:
        running.login = LOGIN
        running.files["/file"] = b"content"
        yield running
