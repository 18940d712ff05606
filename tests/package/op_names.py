# SPDX-License-Identifier: Apache-2.0
"""The ops that the tests of this folder call."""

from __future__ import annotations

from vllm import _custom_ops

#: Modules of wrappers whose ops the kernels for the CPU do not have.
GPU_ONLY = {"vllm._custom_ops.device", "vllm._custom_ops.distributed"}
NAMES = [name for name in _custom_ops.__all__ if getattr(_custom_ops, name).__module__ not in GPU_ONLY]
