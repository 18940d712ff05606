# SPDX-License-Identifier: Apache-2.0
"""What a GPU says of itself."""

from __future__ import annotations

from vllm._ops import namespace

_C = namespace("_C_cuda_utils")


def get_device_attribute(attribute: int, device: int) -> int:
    """An attribute of a GPU.

    Source: CUDA Runtime API, ``cudaDeviceGetAttribute``; HIP's ``hipDeviceGetAttribute``.

    Args:
        attribute: its number in the CUDA runtime (``cudaDeviceAttr``), or in HIP's.
        device: the GPU, numbered from 0; a negative number is the current one.

    Raises:
        RuntimeError: there is no such GPU or attribute, or no driver.
    """
    value: int = _C.get_device_attribute(attribute, device)
    return value


def get_max_shared_memory_per_block_device_attribute(device: int) -> int:
    """Shared memory that a thread block of a GPU can have when it asks, in bytes.

    Source: CUDA Runtime API, ``cudaDevAttrMaxSharedMemoryPerBlockOptin``.

    Args:
        device: the GPU, numbered from 0; a negative number is the current one.

    Raises:
        RuntimeError: there is no such GPU, or no driver.
    """
    value: int = _C.get_max_shared_memory_per_block_device_attribute(device)
    return value
