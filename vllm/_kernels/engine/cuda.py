# SPDX-License-Identifier: Apache-2.0
"""The platform for NVIDIA GPUs of the engine over our kernels."""

from __future__ import annotations

from vllm._kernels.engine import flash_attention, gpu

gpu.stand_in("_C_stable_libtorch")  # upstream's module imports it
flash_attention.allow_absence()

from vllm.platforms.cuda import CudaPlatform  # noqa: E402 - after the stand-ins


class KernelsCudaPlatform(gpu.GpuChecks, CudaPlatform):  # type: ignore[misc] # as in cpu.py
    """Upstream's platform with our libraries."""
