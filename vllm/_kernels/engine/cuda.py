# SPDX-License-Identifier: Apache-2.0
"""The platform for NVIDIA GPUs of the engine over our kernels."""

from __future__ import annotations

from vllm._kernels.engine import flash_attention, gpu

for name in ("_C_stable_libtorch", "_moe_C_stable_libtorch"):  # upstream's modules import them
    gpu.stand_in(name)
flash_attention.allow_absence()

from vllm.platforms.cuda import CudaPlatform  # noqa: E402 - after the stand-ins


class KernelsCudaPlatform(gpu.GpuChecks, CudaPlatform):  # type: ignore[misc] # as in cpu.py
    """Upstream's platform with our libraries."""
