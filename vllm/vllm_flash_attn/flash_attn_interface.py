# SPDX-License-Identifier: Apache-2.0
"""The functions of :mod:`vllm._kernels.flash_attn`, under upstream's name."""

from __future__ import annotations

from vllm._kernels.flash_attn.flash_attn_interface import *  # noqa: F403 - this module has the same names
from vllm._kernels.flash_attn.flash_attn_interface import __all__ as __all__  # noqa: PLC0414 - a re-export
