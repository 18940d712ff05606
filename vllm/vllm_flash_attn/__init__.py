# SPDX-License-Identifier: Apache-2.0
"""Attention by FlashAttention: :mod:`vllm._kernels.flash_attn`, under upstream's name."""

from __future__ import annotations

from vllm._kernels.flash_attn import *  # noqa: F403 - this module has the same names
from vllm._kernels.flash_attn import __all__ as __all__
