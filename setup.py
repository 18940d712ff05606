# SPDX-License-Identifier: Apache-2.0
"""Puts vllm_build's classes together; every decision lies there."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "scripts"))

from vllm_build import kernels_table, plan, requirements, version  # noqa: E402 - found through the line above
from vllm_build.cmake_ext import CMakeExtension, cmake_build_ext  # noqa: E402
from vllm_build.device import target_device  # noqa: E402
from vllm_build.settings import Settings  # noqa: E402

SETTINGS = Settings.from_environ()
DEVICE = target_device(SETTINGS)


def get_vllm_version() -> str:
    """The version of the distribution; needs neither torch nor a compiler."""
    return version.full_version(ROOT, SETTINGS, DEVICE)


def get_requirements() -> list[str]:
    """The run requirements of the device."""
    return requirements.read(ROOT, DEVICE)


def extensions() -> list[CMakeExtension]:
    """The extensions of the device; none for devices that compile nothing."""
    if DEVICE in plan.PURE_DEVICES:
        return []
    return [CMakeExtension(extension.name, str(ROOT)) for extension in plan.resolve(kernels_table.load(ROOT), DEVICE).extensions]


if __name__ == "__main__":
    version.write_version_file(ROOT, get_vllm_version())
    setup(
        version=get_vllm_version(),
        install_requires=get_requirements(),
        ext_modules=extensions(),
        cmdclass={"build_ext": cmake_build_ext},
        options={"bdist_wheel": {"py_limited_api": "cp310"}} if extensions() else {},
    )
