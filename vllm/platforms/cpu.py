# SPDX-License-Identifier: Apache-2.0
"""The host's processor as a platform."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm.platforms import host
from vllm.platforms.interface import Platform, PlatformEnum

if TYPE_CHECKING:
    import torch


class CpuPlatform(Platform):
    """Kernels on the processor; which instruction set they use is decided when they run."""

    _enum = PlatformEnum.CPU
    device_name = "cpu"
    device_type = "cpu"
    dispatch_key = "CPU"

    @property
    def supported_dtypes(self) -> list[torch.dtype]:
        """All that the kernels are written for; bfloat16 first, as most checkpoints are stored in it."""
        import torch  # noqa: PLC0415 - asking what the platform is must not cost an import of torch

        return [torch.bfloat16, torch.float16, torch.float32]

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        """The processor's model name.

        Raises:
            ValueError: ``device_id`` is not 0; torch has one CPU device.
        """
        cls._check(device_id)
        return host.cpu_model()

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:
        """The machine's memory, or the limit of the control group this process is in, in bytes.

        Raises:
            ValueError: ``device_id`` is not 0.
        """
        cls._check(device_id)
        return host.memory_bytes()

    @classmethod
    def get_cpu_features(cls) -> frozenset[str]:
        """The processor's instruction-set flags as the kernel names them, such as ``avx2`` or ``asimd``."""
        return host.cpu_flags()

    @staticmethod
    def _check(device_id: int) -> None:
        if device_id != 0:
            raise ValueError(f"device_id={device_id}: the CPU platform has one device, 0")
