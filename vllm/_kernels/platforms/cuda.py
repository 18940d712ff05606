# SPDX-License-Identifier: Apache-2.0
"""NVIDIA GPUs as a platform, as seen by torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm._kernels.platforms.interface import Platform, PlatformEnum

if TYPE_CHECKING:
    import torch


class CudaPlatform(Platform):
    """Kernels on NVIDIA GPUs."""

    _enum = PlatformEnum.CUDA
    device_name = "cuda"
    device_type = "cuda"
    dispatch_key = "CUDA"

    @property
    def supported_dtypes(self) -> list[torch.dtype]:
        """All dtypes of the kernels; bfloat16 is first, because most checkpoints use it.

        Old chips convert bfloat16 in software.
        """
        import torch  # noqa: PLC0415 - detecting the platform must not import torch

        return [torch.bfloat16, torch.float16, torch.float32]

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        """The GPU's model.

        Raises:
            RuntimeError: torch sees no GPU.
            ValueError: there is no GPU with that number.
        """
        name: str = cls._properties(device_id).name
        return name

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:
        """The GPU's memory in bytes.

        Raises:
            RuntimeError: torch sees no GPU.
            ValueError: there is no GPU with that number.
        """
        memory: int = cls._properties(device_id).total_memory
        return memory

    @staticmethod
    def _properties(device_id: int) -> Any:
        import torch  # noqa: PLC0415 - detecting the platform must not import torch

        if not torch.cuda.is_available():
            built = (
                f"built for CUDA {torch.version.cuda}"
                if torch.version.cuda
                else "built without CUDA"
            )
            raise RuntimeError(
                f"torch {torch.__version__} ({built}) sees no GPU: install a torch for CUDA and a "
                "driver that is new enough for it"
            )
        count = torch.cuda.device_count()
        if not 0 <= device_id < count:
            raise ValueError(
                f"device_id={device_id}: torch sees {count} GPU{'s' if count > 1 else ''}, "
                "numbered from 0"
            )
        return torch.cuda.get_device_properties(device_id)
