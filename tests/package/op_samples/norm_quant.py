# SPDX-License-Identifier: Apache-2.0
"""Sample calls of fused norms; tests/package/test_custom_ops.py describes the format."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

_FP8 = torch.float8_e4m3fn


def _norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(x, x.shape[-1:], weight, 1e-6)


def _fused_add(
    _result: torch.Tensor,
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    _epsilon: float,
) -> dict[int, torch.Tensor]:
    return {0: (_norm(x + residual, weight) * (1 / scale)).to(_FP8), 2: x + residual}


def _dynamic(
    _result: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *rest: Any
) -> dict[int, torch.Tensor]:
    total = x + rest[-1]
    normed = _norm(total, weight)
    scale = normed.abs().amax(-1, keepdim=True) / 127
    return {0: (normed * (1 / scale)).round().to(torch.int8), 3: scale, 6: total}


def _qk_arguments() -> tuple[object, ...]:
    angle = torch.randn(7, 4)
    cache = torch.cat((angle.cos(), angle.sin()), dim=-1)
    return (
        torch.randn(3, 4 * 8),
        2,
        1,
        1,
        8,
        1e-6,
        torch.randn(8),
        torch.randn(8),
        cache,
        True,
        torch.tensor([2, 0, 6]),
    )


def _qk_norm_rope(qkv: torch.Tensor, *rest: Any) -> dict[int, torch.Tensor]:
    q_weight, k_weight, cache, _neox, positions = rest[5:]
    heads = qkv.view(3, 4, 8)
    normed = torch.cat((_norm(heads[:, :2], q_weight), _norm(heads[:, 2:3], k_weight)), dim=1)
    cos, sin = cache[positions].unsqueeze(1).chunk(2, dim=-1)
    a, b = normed.chunk(2, dim=-1)
    rotated = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    return {0: torch.cat((rotated, heads[:, 3:]), dim=1).view_as(qkv)}


SAMPLES = {
    "rms_norm_static_fp8_quant": (
        lambda: (
            torch.empty(3, 10, dtype=_FP8),
            torch.randn(3, 10),
            torch.randn(10),
            torch.tensor([0.05]),
            1e-6,
        ),
        lambda _result, x, weight, scale, _epsilon: {0: (_norm(x, weight) * (1 / scale)).to(_FP8)},
    ),
    "fused_add_rms_norm_static_fp8_quant": (
        lambda: (
            torch.empty(3, 10, dtype=_FP8),
            torch.randn(3, 10),
            torch.randn(3, 10),
            torch.randn(10),
            torch.tensor([0.05]),
            1e-6,
        ),
        _fused_add,
    ),
    "rms_norm_dynamic_per_token_quant": (
        lambda: (
            torch.empty(3, 10, dtype=torch.int8),
            torch.randn(3, 10),
            torch.randn(10),
            torch.empty(3, 1),
            1e-6,
            None,
            torch.randn(3, 10),
        ),
        _dynamic,
    ),
    "fused_qk_norm_rope": (_qk_arguments, _qk_norm_rope),
}
