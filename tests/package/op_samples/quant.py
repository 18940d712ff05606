# SPDX-License-Identifier: Apache-2.0
"""Sample calls of int8 and group quantisation; test_custom_ops.py describes the format."""

from __future__ import annotations

from typing import Any

import torch

_FP8 = torch.float8_e4m3fn


def _static_int8(
    _result: torch.Tensor, x: torch.Tensor, scale: torch.Tensor, azp: torch.Tensor
) -> dict[int, torch.Tensor]:
    return {0: ((x * (1 / scale)).round() + azp).clamp(-128, 127).to(torch.int8)}


def _dynamic_int8(
    _result: torch.Tensor,
    x: torch.Tensor,
    _scale: torch.Tensor,
    _azp: torch.Tensor,
) -> dict[int, torch.Tensor]:
    least, largest = x.aminmax(dim=-1, keepdim=True)
    scale = (largest - least) / 255
    azp = (-128 - least / scale).round()
    return {
        0: ((x * (1 / scale)).round() + azp).clamp(-128, 127).to(torch.int8),
        2: scale,
        3: azp.int(),
    }


def _groups(x: torch.Tensor, high: float) -> tuple[torch.Tensor, torch.Tensor]:
    groups = x.unflatten(-1, (2, 8))
    scale = groups.abs().amax(-1) / high
    return (groups / scale[..., None]).flatten(-2), scale


def _group_fp8(x: torch.Tensor, *_rest: Any) -> dict[int, torch.Tensor]:
    quotient, scale = _groups(x, 448)
    return {1: quotient.to(_FP8), 2: scale}


def _group_int8(x: torch.Tensor, *_rest: Any) -> dict[int, torch.Tensor]:
    quotient, scale = _groups(x, 127)
    return {1: quotient.trunc().to(torch.int8), 2: scale}


SAMPLES = {
    "static_scaled_int8_quant": (
        lambda: (
            torch.empty(3, 10, dtype=torch.int8),
            torch.randn(3, 10),
            torch.tensor([0.03]),
            torch.tensor([7], dtype=torch.int32),
        ),
        _static_int8,
    ),
    "dynamic_scaled_int8_quant": (
        lambda: (
            torch.empty(3, 10, dtype=torch.int8),
            torch.randn(3, 10),
            torch.empty(3, 1),
            torch.empty(3, 1, dtype=torch.int32),
        ),
        _dynamic_int8,
    ),
    "per_token_group_fp8_quant": (
        lambda: (
            torch.randn(3, 16),
            torch.empty(3, 16, dtype=_FP8),
            torch.empty(2, 3).t(),
            8,
            1e-10,
            -448.0,
            448.0,
            False,
            True,
            False,
        ),
        _group_fp8,
    ),
    "per_token_group_quant_int8": (
        lambda: (
            torch.randn(3, 16),
            torch.empty(3, 16, dtype=torch.int8),
            torch.empty(3, 2),
            8,
            1e-10,
            -128.0,
            127.0,
        ),
        _group_int8,
    ),
}
