# SPDX-License-Identifier: Apache-2.0
"""Which device a build is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm_build.settings import Settings


def target_device(settings: Settings) -> str:
    """The device asked for with ``VLLM_TARGET_DEVICE``, else ``cpu``: the one device this tree has kernels for."""
    return settings.target_device or "cpu"
