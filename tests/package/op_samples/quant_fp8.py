# SPDX-License-Identifier: Apache-2.0
"""Sample calls of float8 quantisation; tests/package/test_custom_ops.py describes the format."""

from __future__ import annotations

import torch

_FP8 = torch.float8_e4m3fn


def _static(
    _result: torch.Tensor, x: torch.Tensor, scale: torch.Tensor, _group_shape: list[int]
) -> dict[int, torch.Tensor]:
    return {0: (x * (1 / scale)).to(_FP8)}


def _dynamic(
    _result: torch.Tensor, x: torch.Tensor, _scale: torch.Tensor
) -> dict[int, torch.Tensor]:
    scale = x.abs().amax() / 448
    return {0: (x * (1 / scale)).to(_FP8), 2: scale.reshape(1)}


def _per_token(
    _result: torch.Tensor, x: torch.Tensor, _scale: torch.Tensor, bound: torch.Tensor
) -> dict[int, torch.Tensor]:
    scale = x.abs().amax(-1, keepdim=True).minimum(bound) / 448
    return {0: (x / scale).clamp(-448, 448).to(_FP8), 2: scale}


SAMPLES = {
    "static_scaled_fp8_quant": (
        lambda: (torch.empty(3, 10, dtype=_FP8), torch.randn(3, 10), torch.rand(10) + 0.5, [-1, 1]),
        _static,
    ),
    "dynamic_scaled_fp8_quant": (
        lambda: (torch.empty(3, 10, dtype=_FP8), torch.randn(3, 10), torch.empty(1)),
        _dynamic,
    ),
    "dynamic_per_token_scaled_fp8_quant": (
        lambda: (
            torch.empty(3, 10, dtype=_FP8),
            torch.randn(3, 10),
            torch.empty(3, 1),
            torch.tensor([1.5]),
        ),
        _per_token,
    ),
}
