# SPDX-License-Identifier: Apache-2.0
"""The ops that the tests of this folder call."""

from __future__ import annotations

from vllm import _custom_ops

#: Those that the kernels for the CPU do not have.
GPU_ONLY = {"get_device_attribute", "get_max_shared_memory_per_block_device_attribute"}
NAMES = [name for name in _custom_ops.__all__ if name not in GPU_ONLY]
