# SPDX-License-Identifier: Apache-2.0
"""Quantisation to float8 and int8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kernels.rowwise import FP8_MAX, GROUP, to_fp8
from kernels.workload import FP8, Workload, builds, rand, simple

if TYPE_CHECKING:
    from collections.abc import Callable

    from kernels.cases import Case


def _int8(x: torch.Tensor) -> torch.Tensor:
    return x.round().clamp(-128, 127).to(torch.int8)


def _dynamic_fp8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = (x.abs().amax().float() / FP8_MAX).view(1)
    return to_fp8(x, scale), scale


def _token_fp8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = (x.abs().amax(-1, keepdim=True).float() / FP8_MAX).clamp(min=1 / (FP8_MAX * 512))
    return to_fp8(x, scale), scale


def _token_int8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = x.abs().amax(-1, keepdim=True).float() / 127
    return _int8(x.float() / scale), scale


def _token_int8_azp(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    low, high = x.amin(-1, keepdim=True).float(), x.amax(-1, keepdim=True).float()
    scale = (high - low) / 255
    azp = (-128 - low / scale).round()
    return _int8((x.float() / scale).round() + azp), scale, azp.int()


def _group_fp8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    groups = x.float().view(*x.shape[:-1], -1, GROUP)
    scale = groups.abs().amax(-1, keepdim=True).clamp(min=1e-10) / FP8_MAX
    return to_fp8(groups, scale).view(x.shape), scale.squeeze(-1)


def _group_int8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    groups = x.float().view(*x.shape[:-1], -1, GROUP)
    scale = groups.abs().amax(-1, keepdim=True).clamp(min=1e-10) / 127
    return _int8(groups / scale).view(x.shape), scale.squeeze(-1)


@builds(
    "static_scaled_fp8_quant",
    "dynamic_scaled_fp8_quant",
    "dynamic_per_token_scaled_fp8_quant",
    "static_scaled_int8_quant",
    "dynamic_scaled_int8_quant",
    "per_token_group_fp8_quant",
    "per_token_group_quant_int8",
)
def _quant(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens, hidden = case.shape["tokens"], case.shape["hidden"]
    x, call = rand(tokens, hidden, dtype=dtype), (name, "_C")
    out = torch.empty(tokens, hidden, dtype=torch.int8 if "int8" in name else FP8)
    # Upstream's GPU kernel takes the maximum with the given scale, so it must start at zero.
    one, zero = torch.tensor([0.02]), torch.zeros(1)
    per_token, per_group = torch.empty(tokens, 1), torch.empty(tokens, hidden // GROUP)
    azp = torch.empty(tokens, 1, dtype=torch.int32)
    if name == "static_scaled_fp8_quant":
        return simple(call, (out, x, one), lambda x, s: (to_fp8(x, s),), (x, one), (out,))
    if name == "static_scaled_int8_quant":
        return simple(
            call, (out, x, one, None), lambda x, s: (_int8(x.float() / s),), (x, one), (out,)
        )
    calls: dict[str, tuple[tuple[Any, ...], Callable[..., object], tuple[torch.Tensor, ...]]] = {
        "azp": ((out, x, per_token, azp), _token_int8_azp, (out, per_token, azp)),
        "dynamic_scaled_fp8_quant": ((out, x, zero), _dynamic_fp8, (out, zero)),
        "dynamic_per_token_scaled_fp8_quant": (
            (out, x, per_token, None),
            _token_fp8,
            (out, per_token),
        ),
        "dynamic_scaled_int8_quant": ((out, x, per_token, None), _token_int8, (out, per_token)),
        "per_token_group_fp8_quant": (
            (x, out, per_group, GROUP, 1e-10, -FP8_MAX, FP8_MAX, False, False, False),
            _group_fp8,
            (out, per_group),
        ),
        "per_token_group_quant_int8": (
            (x, out, per_group, GROUP, 1e-10, -127.0, 127.0),
            _group_int8,
            (out, per_group),
        ),
    }
    arguments, function, results = calls["azp" if case.variant == "azp" else name]
    return simple(call, arguments, function, (x,), results)
