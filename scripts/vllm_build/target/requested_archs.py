# SPDX-License-Identifier: Apache-2.0
"""Reads the requested GPU architectures from the settings."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from vllm_build.architectures import cuda_archs, gpu_targets
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vllm_build.settings.build_settings import Settings

_CMAKE_VARIABLE = "CMAKE_CUDA_ARCHITECTURES"


def _without_ptx(entries: Iterable[str]) -> list[str]:
    return [
        str(replace(arch, ptx=False))
        for entry in entries
        for arch in cuda_archs.parse(entry, "architecture")
    ]


def requested(device: str, settings: Settings) -> tuple[str, str] | None:
    """The requested list in the device's spelling, and its source; None if none is requested.

    ``TORCH_CUDA_ARCH_LIST`` and ``CMAKE_CUDA_ARCHITECTURES`` (a variable, or a definition in
    ``CMAKE_ARGS``) may both be set if they name the same architectures. The former then decides for
    which entries PTX is kept, because plain entries of the latter always request PTX.

    Raises:
        ConfigurationError: a list is malformed, or two lists disagree.
    """
    if device == "rocm":
        return (
            None
            if settings.rocm_archs is None
            else (settings.rocm_archs, gpu_targets.VARIABLES["rocm"])
        )
    if device != "cuda":
        return None
    asked: list[tuple[str, str]] = []
    if settings.cuda_archs is not None:
        asked.append((settings.cuda_archs, gpu_targets.VARIABLES["cuda"]))
    if settings.cmake_cuda_archs is not None:
        asked.append(
            (gpu_targets.from_cmake(settings.cmake_cuda_archs, _CMAKE_VARIABLE), _CMAKE_VARIABLE)
        )
    # `-D NAME=VALUE` is two words, `-DNAME=VALUE` is one. NUL separates words, as none contains it.
    for argument in "\0".join(settings.cmake_args).replace("-D\0", "-D").split("\0"):
        if definition := re.fullmatch(rf"-D{_CMAKE_VARIABLE}(?::\w+)?=(.+)", argument):
            source = f"{_CMAKE_VARIABLE} in CMAKE_ARGS"
            asked.append((gpu_targets.from_cmake(definition[1], source), source))
    for text, source in asked[1:]:
        first, first_source = asked[0]
        if _without_ptx(gpu_targets.parse(device, first, first_source)) != _without_ptx(
            gpu_targets.parse(device, text, source)
        ):
            raise ConfigurationError(
                f"{first_source} ({first}) and {source} ({text}) name different architectures",
                expected="one list of GPU architectures",
                remedy=f"unset {source}",
            )
    return asked[0] if asked else None
