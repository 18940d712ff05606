# SPDX-License-Identifier: Apache-2.0
"""The device this process runs on: ``from vllm._kernels.platforms import current_platform``.

It is determined on first use: ``VLLM_TARGET_DEVICE`` if it is set, otherwise the device that the
installed kernels were built for. Without kernels there is no device, and
``current_platform.is_unspecified()`` is true.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

from vllm._kernels import build_info, envs
from vllm._kernels.platforms.interface import (
    CpuArchEnum,
    Platform,
    PlatformEnum,
    UnspecifiedPlatform,
)

if TYPE_CHECKING:
    current_platform: Platform

__all__ = [
    "CpuArchEnum",
    "Platform",
    "PlatformEnum",
    "UnspecifiedPlatform",
    "current_platform",
    "detect",
]

#: Device → module and class. Other devices have no Python support in this release.
_PLATFORMS = {
    "cpu": ("vllm._kernels.platforms.cpu", "CpuPlatform"),
    "cuda": ("vllm._kernels.platforms.cuda", "CudaPlatform"),
    "rocm": ("vllm._kernels.platforms.rocm", "RocmPlatform"),
    "empty": ("vllm._kernels.platforms.interface", "UnspecifiedPlatform"),
}


def _device_and_reason() -> tuple[str, str]:
    if device := envs.VLLM_TARGET_DEVICE:
        return device, f"VLLM_TARGET_DEVICE={device}"
    for record in build_info.installed():
        if record.component == "vllm-kernels":
            return (
                record.device,
                f"the installed {record.component} {record.version} are built for it",
            )
    if (foreign := build_info.foreign()) is not None:
        return foreign.device, f"the libraries of {foreign.distribution} are built for it"
    return "empty", "no kernels are installed"


def detect() -> Platform:
    """Determine the platform from the environment as it is now.

    Raises:
        RuntimeError: the device has no platform in this release.
        ValueError: ``VLLM_TARGET_DEVICE`` or the kernels' record is malformed.
    """
    device, reason = _device_and_reason()
    try:
        module, name = _PLATFORMS[device]
    except KeyError:
        known = ", ".join(_PLATFORMS)
        raise RuntimeError(
            f"this release of vllm has no platform for {device!r} ({reason}); it has {known}"
        ) from None
    platform: Platform = getattr(importlib.import_module(module), name)()
    return platform


_current = functools.cache(detect)


def __getattr__(name: str) -> Platform:
    if name == "current_platform":
        return _current()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
