# SPDX-License-Identifier: Apache-2.0
"""PEP 517 backend: setuptools', with the build requirements that the device needs.

torch and the build programs are asked for only where kernels are compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

from vllm_build.device import target_device
from vllm_build.plan import PURE_DEVICES
from vllm_build.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def _compile_requirements() -> list[str]:
    if target_device(Settings.from_environ()) in PURE_DEVICES:
        return []
    return ["cmake>=3.26", "ninja", "torch>=2.11"]


def get_requires_for_build_wheel(config_settings: Mapping[str, Any] | None = None) -> list[str]:
    """What a wheel build needs beside ``build-system.requires``."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_compile_requirements()]


def get_requires_for_build_editable(config_settings: Mapping[str, Any] | None = None) -> list[str]:
    """What an editable build needs beside ``build-system.requires``."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_compile_requirements()]


def get_requires_for_build_sdist(config_settings: Mapping[str, Any] | None = None) -> list[str]:
    """A source distribution compiles nothing."""
    return list(build_meta.get_requires_for_build_sdist(config_settings))
