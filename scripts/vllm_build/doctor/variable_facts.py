# SPDX-License-Identifier: Apache-2.0
"""Facts about environment variables that are malformed or contradict each other."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from vllm_build.doctor.fact import Fact, contradiction, of_error
from vllm_build.settings import build_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from vllm_build.settings.build_settings import Settings


def malformed(environ: Mapping[str, str]) -> list[Fact]:
    """One fact per variable with an invalid value; :mod:`package_facts` examines ``CHANNEL``."""
    return [
        of_error("variable", error)
        for error in build_settings.problems(
            {name: environ[name] for name in environ if name != "CHANNEL"}
        )
    ]


def _homes(asked: Settings) -> Iterator[Fact]:
    pairs: list[tuple[str, Path | None, str, Path | None]] = [
        ("CUDA_HOME", asked.cuda_home, "CUDA_PATH", asked.cuda_path),
        ("ROCM_HOME", asked.rocm_home, "ROCM_PATH", asked.rocm_path),
    ]
    for first, chosen, second, other in pairs:
        if chosen and other and chosen.resolve() != other.resolve():
            yield contradiction(
                first,
                f"{first}={chosen} and {second}={other}; {first} takes precedence here, but other "
                "tools may use the other one",
                f"unset {second}",
            )


def _launchers(asked: Settings) -> Iterator[Fact]:
    for language in ("c", "cxx", "cuda", "hip"):
        launcher: str | None = getattr(asked, f"{language}_launcher")
        # CMake expects a list: the program and its arguments, separated by semicolons.
        if launcher and not shutil.which(launcher.split(";")[0], path=asked.search_path):
            name = f"CMAKE_{language.upper()}_COMPILER_LAUNCHER"
            yield contradiction(
                "launcher", f"{name}={launcher} cannot be run", f"install it, or unset {name}"
            )


def _precompiled(asked: Settings) -> Iterator[Fact]:
    if asked.precompiled_sha256 and not asked.precompiled_location:
        yield contradiction(
            "precompiled",
            "VLLM_PRECOMPILED_SHA256 pins a file, but VLLM_PRECOMPILED_WHEEL_LOCATION names none",
            "set VLLM_PRECOMPILED_WHEEL_LOCATION, or unset VLLM_PRECOMPILED_SHA256",
        )
    if asked.precompiled_key and asked.precompiled_location and not asked.precompiled_sha256:
        yield contradiction(
            "precompiled",
            "VLLM_PRECOMPILED_KEY asks for a signature, but VLLM_PRECOMPILED_WHEEL_LOCATION names "
            "a file, which has none",
            "set VLLM_PRECOMPILED_SHA256, name a signed store in VLLM_PRECOMPILED_STORES instead, "
            "or unset VLLM_PRECOMPILED_KEY",
        )
    if asked.accepts_foreign and not asked.precompiled_location:
        yield contradiction(
            "precompiled",
            f"VLLM_PRECOMPILED_FOREIGN={asked.precompiled_foreign} is for an official wheel, but "
            "VLLM_PRECOMPILED_WHEEL_LOCATION names none",
            "set VLLM_PRECOMPILED_WHEEL_LOCATION, or unset VLLM_PRECOMPILED_FOREIGN",
        )
    if asked.precompiled and not asked.precompiled_location and not asked.precompiled_stores:
        yield contradiction(
            "precompiled",
            "VLLM_USE_PRECOMPILED=1, but neither VLLM_PRECOMPILED_WHEEL_LOCATION nor "
            "VLLM_PRECOMPILED_STORES is set, so there is nowhere to search",
            "set one of them, or unset VLLM_USE_PRECOMPILED",
        )
    if asked.precompiled and asked.target_device in ("tpu", "empty"):
        yield contradiction(
            "precompiled",
            f"precompiled kernels are requested, but device {asked.target_device} has no kernels",
            "unset VLLM_USE_PRECOMPILED and VLLM_PRECOMPILED_WHEEL_LOCATION, or choose another "
            "VLLM_TARGET_DEVICE",
        )


def contradictions(asked: Settings) -> list[Fact]:
    """One fact per set of variables that contradict each other."""
    return [*_homes(asked), *_launchers(asked), *_precompiled(asked)]
