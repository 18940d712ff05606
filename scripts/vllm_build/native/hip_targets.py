# SPDX-License-Identifier: Apache-2.0
"""Asks the HIP compiler whether it compiles for the architectures of a plan.

CMake tests the compiler for an architecture of its own, so a compiler that cannot compile for one
of ours would fail in every unit.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import TYPE_CHECKING

from vllm_build.architectures import gpu_targets
from vllm_build.native import cmake
from vllm_build.target.toolkits import rocm_toolkit, toolkit_search
from vllm_build.util.errors import ConfigurationError, ToolchainError
from vllm_build.util.processes import children
from vllm_build.util.redaction import excerpt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vllm_build.kernels.build_plan import Plan
    from vllm_build.settings.build_settings import Settings
    from vllm_build.target.toolkits.toolkit_search import Toolkit

#: clang looks for the device library of an architecture, and compiles nothing. ROCm 5.7's clang
#: calls --offload-device-only by this name.
_QUESTION = ("-x", "hip", "-nogpuinc", "--cuda-device-only", "-###", "-c", "/dev/null")
_ERROR = re.compile(r"^(?:\S*: )?error: (.*)$", re.MULTILINE)


def _words(settings: Settings, variable: str, definition: str) -> list[str]:
    """What CMake reads from a definition in ``CMAKE_ARGS``, else from a variable, in words."""
    defined = cmake.definition(settings.cmake_args, definition)
    text = settings.inherited.get(variable, "") if defined is None else defined
    try:
        return shlex.split(text.replace(";", " "))
    except ValueError as error:
        source = variable if defined is None else f"{definition} in CMAKE_ARGS"
        raise ConfigurationError(
            f"{source}: {text!r} cannot be split into words: {error}",
            expected="a command line",
            remedy=f"correct or unset {source}",
        ) from error


def _refusal(compiler: Sequence[str], arch: str) -> str | None:
    """What the compiler says against an architecture; None if it compiles for it."""
    try:
        done = children.run(
            [*compiler, f"--offload-arch={arch}", *_QUESTION], timeout=toolkit_search.TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {toolkit_search.TIMEOUT} s"
    except OSError as error:
        return f"it cannot be run: {error.strerror}"
    if done.returncode == 0:
        return None
    said = done.stderr or done.stdout
    found = _ERROR.search(said)
    return excerpt(found[1] if found else said.strip() or f"status {done.returncode}")


def require(plan: Plan, toolkit: Toolkit, settings: Settings) -> None:
    """Refuse a compiler that cannot compile for an architecture of the plan.

    Raises:
        ToolchainError: it cannot, or there is no compiler.
        ConfigurationError: ``HIPCXX`` or ``HIPFLAGS`` cannot be split into words.
    """
    kernels = (kernel for extension in plan.extensions for kernel in extension.kernels)
    archs = tuple(dict.fromkeys(arch for kernel in kernels for arch in kernel.archs))
    compiler = _words(settings, "HIPCXX", "CMAKE_HIP_COMPILER") or [
        str(rocm_toolkit.find_clang(toolkit, settings.search_path))
    ]
    flags = _words(settings, "HIPFLAGS", "CMAKE_HIP_FLAGS")
    command = [*compiler, f"--rocm-path={toolkit.root}", *flags]
    refused = {arch: said for arch in archs if (said := _refusal(command, arch))}
    if not refused:
        return
    ours = gpu_targets.parse("rocm", gpu_targets.DEFAULTS["rocm"], "the default list")
    there = [arch for arch in ours if _refusal(command, arch) is None]
    raise ToolchainError(
        f"{compiler[0]} does not compile for {', '.join(refused)}: {next(iter(refused.values()))}",
        expected=f"some of {', '.join(there)}, for which it compiles with {toolkit.root}"
        if there
        else f"a clang for AMD GPUs, and the device libraries of ROCm in {toolkit.root}",
        remedy=f"name these in {gpu_targets.VARIABLES['rocm']}, or set ROCM_HOME to another ROCm"
        if there
        else "set ROCM_HOME to a ROCm installation, or HIPCXX to its clang++",
    )
