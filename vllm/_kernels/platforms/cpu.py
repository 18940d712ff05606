# SPDX-License-Identifier: Apache-2.0
"""The host's processor as a platform."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.platforms import host
from vllm._kernels.platforms.interface import Platform, PlatformEnum

if TYPE_CHECKING:
    import torch


class CpuPlatform(Platform):
    """Kernels on the host's processor. The instruction set is chosen when they run."""

    _enum = PlatformEnum.CPU
    device_name = "cpu"
    device_type = "cpu"
    dispatch_key = "CPU"

    @property
    def supported_dtypes(self) -> list[torch.dtype]:
        """All dtypes of the kernels; bfloat16 is first, because most checkpoints use it."""
        import torch  # noqa: PLC0415 - detecting the platform must not import torch

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
        """The memory of the machine, or the limit of this process's control group, in bytes.

        Raises:
            ValueError: ``device_id`` is not 0.
        """
        cls._check(device_id)
        return host.memory_bytes()

    @classmethod
    def get_cpu_features(cls) -> frozenset[str]:
        """The processor's flags in the kernel's spelling, such as ``avx2`` or ``asimd``."""
        return host.cpu_flags()

    @staticmethod
    def _check(device_id: int) -> None:
        if device_id != 0:
            raise ValueError(f"device_id={device_id}: the CPU platform has one device, 0")
