# SPDX-License-Identifier: Apache-2.0
"""Passes the build library to setuptools, and makes no decisions itself.

Importing this file has no effect except for its definitions.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from setuptools import setup

if TYPE_CHECKING:
    from packaging.version import Version

ROOT = Path(__file__).resolve().parent
if str(ROOT / "scripts") not in sys.path:
    sys.path.insert(0, str(ROOT / "scripts"))

from vllm_build.project import distribution_version  # noqa: E402 - found through the line above
from vllm_build.settings.build_settings import Settings  # noqa: E402
from vllm_build.target import device  # noqa: E402 - found through the line above
from vllm_build.target.toolkits import toolkit_finder  # noqa: E402 - found through the line above
from vllm_build.util import environ  # noqa: E402 - found through the line above
from vllm_build.util.errors import VllmBuildError  # noqa: E402
from vllm_build.util.processes import signals  # noqa: E402 - found through the line above
from vllm_build.wheels import distribution, requirements  # noqa: E402 - found through the line above
from vllm_build.wheels.cmake_ext import CMakeExtension, cmake_build_ext, precompiled_build_ext  # noqa: E402

__all__ = [
    "CMakeExtension",
    "cmake_build_ext",
    "get_nvcc_cuda_version",
    "get_requirements",
    "get_vllm_version",
    "precompiled_build_ext",
]


def get_vllm_version() -> str:
    """The version of the distribution. It can be computed without torch and without a compiler.

    Raises:
        ConfigurationError: a variable or ``VERSION`` is malformed, or the device contradicts the
            installed torch.
    """
    return distribution_version.of_tree(ROOT, Settings.from_environ(environ.snapshot()))


def get_requirements() -> list[str]:
    """The run requirements of the device.

    Raises:
        ConfigurationError: a requirements file is missing or malformed.
    """
    return requirements.read(ROOT, device.target_device(Settings.from_environ(environ.snapshot())))


def get_nvcc_cuda_version() -> Version:
    """The version of the CUDA toolkit that a build would use.

    Raises:
        ToolchainError: nvcc is missing, broken or too old.
    """
    return toolkit_finder.nvcc_cuda_version(Settings.from_environ(environ.snapshot()))


if __name__ == "__main__":
    try:
        with signals.ending("the build"):
            setup(
                **distribution.arguments(ROOT, Settings.from_environ(environ.snapshot()), sys.argv)
            )
    except VllmBuildError as error:
        sys.stderr.write(f"\nerror: {error}\n")
        raise SystemExit(error.exit_code) from error
