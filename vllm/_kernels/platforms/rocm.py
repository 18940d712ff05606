# SPDX-License-Identifier: Apache-2.0
"""AMD GPUs as a platform, as seen by torch, which calls them ``cuda``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm._kernels.platforms.interface import Platform, PlatformEnum

if TYPE_CHECKING:
    import torch

#: Processors whose float8 formats have no negative zero (CDNA 3). Later ones have those of OCP.
_FNUZ = ("gfx940", "gfx941", "gfx942")


class RocmPlatform(Platform):
    """Kernels on AMD GPUs."""

    _enum = PlatformEnum.ROCM
    device_name = "rocm"
    device_type = "cuda"
    dispatch_key = "CUDA"

    @property
    def supported_dtypes(self) -> list[torch.dtype]:
        """All dtypes of the kernels; bfloat16 is first, because most checkpoints use it."""
        import torch  # noqa: PLC0415 - detecting the platform must not import torch

        return [torch.bfloat16, torch.float16, torch.float32]

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        """The GPU's model.

        Raises:
            RuntimeError: torch sees no AMD GPU.
            ValueError: there is no GPU with that number.
        """
        name: str = cls._properties(device_id).name
        return name

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:
        """The GPU's memory in bytes.

        Raises:
            RuntimeError: torch sees no AMD GPU.
            ValueError: there is no GPU with that number.
        """
        memory: int = cls._properties(device_id).total_memory
        return memory

    @classmethod
    def get_processor(cls, device_id: int = 0) -> str:
        """The processor in LLVM's words, such as ``gfx942``, without its settings.

        Raises:
            RuntimeError: torch sees no AMD GPU.
            ValueError: there is no GPU with that number.
        """
        name: str = cls._properties(device_id).gcnArchName
        return name.partition(":")[0]

    @classmethod
    def is_fp8_fnuz(cls) -> bool:
        """Whether the GPU's float8 formats are those without a negative zero.

        Raises:
            RuntimeError: torch sees no AMD GPU.
        """
        return cls.get_processor() in _FNUZ

    @classmethod
    def fp8_dtype(cls) -> torch.dtype:
        """The dtype of float8 weights and activations: ``float8_e4m3fnuz`` on gfx942.

        Raises:
            RuntimeError: torch sees no AMD GPU.
        """
        import torch  # noqa: PLC0415 - detecting the platform must not import torch

        return torch.float8_e4m3fnuz if cls.is_fp8_fnuz() else torch.float8_e4m3fn

    @staticmethod
    def _properties(device_id: int) -> Any:
        import torch  # noqa: PLC0415 - detecting the platform must not import torch

        if torch.version.hip is None:
            raise RuntimeError(
                f"torch {torch.__version__} is built without ROCm: install a torch for ROCm"
            )
        if not torch.cuda.is_available():
            raise RuntimeError(
                f"torch {torch.__version__} (built for ROCm, HIP {torch.version.hip}) sees no GPU: "
                "install the amdgpu driver, and let this user open /dev/kfd"
            )
        count = torch.cuda.device_count()
        if not 0 <= device_id < count:
            raise ValueError(
                f"device_id={device_id}: torch sees {count} GPU{'s' if count > 1 else ''}, "
                "numbered from 0"
            )
        return torch.cuda.get_device_properties(device_id)
