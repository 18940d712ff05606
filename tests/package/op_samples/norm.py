# SPDX-License-Identifier: Apache-2.0
"""Sample calls of the norms; tests/package/test_custom_ops.py describes the format."""

from __future__ import annotations

import torch
from torch.nn import functional


def _fused_add(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, epsilon: float
) -> dict[int, torch.Tensor]:
    total = x + residual
    return {0: functional.rms_norm(total, (5,), weight, epsilon), 1: total}


SAMPLES = {
    "rms_norm": (
        lambda: (torch.empty(3, 5), torch.randn(3, 5), torch.randn(5), 1e-6),
        lambda _out, x, weight, epsilon: {0: functional.rms_norm(x, (5,), weight, epsilon)},
    ),
    "fused_add_rms_norm": (
        lambda: (torch.randn(3, 5), torch.randn(3, 5), torch.randn(5), 1e-6),
        _fused_add,
    ),
}
