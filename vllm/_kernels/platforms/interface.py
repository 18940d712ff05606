# SPDX-License-Identifier: Apache-2.0
"""The interface of all platforms.

Names and meanings are upstream vLLM's. A method is added here when every platform implements it.
"""

from __future__ import annotations

import enum
import platform as host
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import torch


class PlatformEnum(enum.Enum):
    """The device families of this project, and ``UNSPECIFIED`` for none of them."""

    CUDA = enum.auto()
    ROCM = enum.auto()
    TPU = enum.auto()
    XPU = enum.auto()
    CPU = enum.auto()
    UNSPECIFIED = enum.auto()


class CpuArchEnum(enum.Enum):
    """The host's processor architecture."""

    X86 = enum.auto()
    ARM = enum.auto()
    POWERPC = enum.auto()
    S390X = enum.auto()
    RISCV = enum.auto()
    OTHER = enum.auto()


_ARCHITECTURES = {
    "x86_64": CpuArchEnum.X86,
    "amd64": CpuArchEnum.X86,
    "aarch64": CpuArchEnum.ARM,
    "arm64": CpuArchEnum.ARM,
    "ppc64le": CpuArchEnum.POWERPC,
    "s390x": CpuArchEnum.S390X,
    "riscv64": CpuArchEnum.RISCV,
}


class Platform(ABC):
    """A device family.

    Attributes:
        device_name: name for people and messages.
        device_type: the type for ``torch.device``.
        dispatch_key: torch's dispatch key for tensors on the device.
    """

    _enum: ClassVar[PlatformEnum]
    device_name: ClassVar[str]
    device_type: ClassVar[str]
    dispatch_key: ClassVar[str]

    def is_cuda(self) -> bool:
        """Whether this is an NVIDIA GPU."""
        return self._enum is PlatformEnum.CUDA

    def is_rocm(self) -> bool:
        """Whether this is an AMD GPU."""
        return self._enum is PlatformEnum.ROCM

    def is_tpu(self) -> bool:
        """Whether this is a Google TPU."""
        return self._enum is PlatformEnum.TPU

    def is_xpu(self) -> bool:
        """Whether this is an Intel GPU."""
        return self._enum is PlatformEnum.XPU

    def is_cpu(self) -> bool:
        """Whether this is the host's processor."""
        return self._enum is PlatformEnum.CPU

    def is_unspecified(self) -> bool:
        """Whether no device was requested and no kernels are installed."""
        return self._enum is PlatformEnum.UNSPECIFIED

    def is_cuda_alike(self) -> bool:
        """Whether torch calls the device ``cuda``, as for NVIDIA and AMD GPUs."""
        return self._enum in (PlatformEnum.CUDA, PlatformEnum.ROCM)

    @property
    @abstractmethod
    def supported_dtypes(self) -> list[torch.dtype]:
        """The floating-point dtypes that the platform's kernels support, best first."""

    @classmethod
    @abstractmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        """The model of a device in its maker's words."""

    @classmethod
    @abstractmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:
        """Memory that this process may use on a device, in bytes."""

    @classmethod
    def is_fp8_fnuz(cls) -> bool:
        """Whether float8 tensors have the formats without a negative zero."""
        return False

    @classmethod
    def fp8_dtype(cls) -> torch.dtype:
        """The dtype of float8 weights and activations."""
        import torch  # noqa: PLC0415 - detecting the platform must not import torch

        return torch.float8_e4m3fn

    @classmethod
    def get_cpu_architecture(cls) -> CpuArchEnum:
        """The architecture of the host's processor."""
        return _ARCHITECTURES.get(host.machine().lower(), CpuArchEnum.OTHER)


class UnspecifiedPlatform(Platform):
    """No device: the platform before kernels are installed.

    Methods that ask about a device raise.
    """

    _enum = PlatformEnum.UNSPECIFIED
    device_name = "unspecified"
    device_type = ""
    dispatch_key = ""

    @property
    def supported_dtypes(self) -> list[torch.dtype]:
        """An empty list, because there are no kernels."""
        return []

    @classmethod
    def _no_device(cls) -> RuntimeError:
        return RuntimeError(
            "no device: vllm's kernels are not installed. Install vllm-kernels, or set "
            "VLLM_TARGET_DEVICE"
        )

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:  # noqa: ARG003 - the interface's
        """Raise, because there is no device.

        Raises:
            RuntimeError: always.
        """
        raise cls._no_device()

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:  # noqa: ARG003 - the interface's
        """Raise, because there is no device.

        Raises:
            RuntimeError: always.
        """
        raise cls._no_device()
