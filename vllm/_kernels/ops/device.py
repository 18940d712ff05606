# SPDX-License-Identifier: Apache-2.0
"""Properties of a GPU."""

from __future__ import annotations

from vllm._kernels.loader import namespace

_C = namespace("_C_cuda_utils")


def get_device_attribute(attribute: int, device: int) -> int:
    """Query an attribute of a GPU.

    Source: CUDA Runtime API, ``cudaDeviceGetAttribute``; HIP's ``hipDeviceGetAttribute``.

    Args:
        attribute: number of the attribute in the CUDA runtime (``cudaDeviceAttr``) or in HIP's.
        device: index of the GPU, from 0; a negative number means the current one.

    Raises:
        RuntimeError: there is no such GPU or attribute, or no driver.
    """
    value: int = _C.get_device_attribute(attribute, device)
    return value


def get_max_shared_memory_per_block_device_attribute(device: int) -> int:
    """Query how much shared memory a thread block can request, in bytes.

    Source: CUDA Runtime API, ``cudaDevAttrMaxSharedMemoryPerBlockOptin``.

    Args:
        device: index of the GPU, from 0; a negative number means the current one.

    Raises:
        RuntimeError: there is no such GPU, or no driver.
    """
    value: int = _C.get_max_shared_memory_per_block_device_attribute(device)
    return value
