# SPDX-License-Identifier: Apache-2.0
"""FlashAttention as upstream's attention backends call it.

Importing this package needs neither torch nor the compiled library.
"""

from __future__ import annotations

from vllm._kernels.flash_attn.flash_attn_interface import (
    fa_version_unsupported_reason,
    flash_attn_varlen_func,
    flash_attn_with_kvcache,
    get_scheduler_metadata,
    is_fa_version_supported,
)

__all__ = [
    "fa_version_unsupported_reason",
    "flash_attn_varlen_func",
    "flash_attn_with_kvcache",
    "get_scheduler_metadata",
    "is_fa_version_supported",
]
