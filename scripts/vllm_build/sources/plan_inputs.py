# SPDX-License-Identifier: Apache-2.0
"""The third-party sources that a plan needs, where CMake expects them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.sources import cutlass, engine_kernels, flash_attention

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.kernels.build_plan import Plan
    from vllm_build.settings.build_settings import Settings


def needed(plan: Plan) -> tuple[str, ...]:
    """The projects of the lock that a plan's kernels are compiled from or with."""
    engine = engine_kernels.NAME in plan.third_party_sources
    return (
        *([cutlass.NAME] if cutlass.is_needed(plan) else []),
        *plan.third_party_sources,
        *([engine_kernels.CUTLASS] if engine else []),
        *([engine_kernels.EXAMPLES] if engine_kernels.EXAMPLES in plan.libraries else []),
    )


def prepare(root: Path, settings: Settings, plan: Plan, inputs: Path) -> dict[str, str]:
    """Put the sources below ``inputs``; returns the CMake variables that name them.

    Raises:
        ConfigurationError: the user's folder of a project does not contain it, or lacks a source.
        FetchError: locked sources have not been fetched.
        IntegrityError: fetched sources were changed.
        ToolchainError: a program of the engine's sources failed.
    """
    return {
        name: folder
        for project in (cutlass, flash_attention, engine_kernels)
        for name, folder in project.prepare(root, settings, plan, inputs).items()
    }
