# SPDX-License-Identifier: Apache-2.0
"""Ops on rows: activations and norms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from kernels.workload import FP8, Workload, builds, rand, simple

if TYPE_CHECKING:
    from kernels.cases import Case

EPSILON = 1e-6
FP8_MAX = torch.finfo(FP8).max
GROUP = 128


def to_fp8(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Quantise to float8, saturated."""
    return (x.float() / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8)


def _halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = x.chunk(2, dim=-1)
    return first, second


def _silu_and_mul(x: torch.Tensor) -> tuple[torch.Tensor]:
    a, b = _halves(x)
    return (functional.silu(a) * b,)


def _mul_and_silu(x: torch.Tensor) -> tuple[torch.Tensor]:
    a, b = _halves(x)
    return (a * functional.silu(b),)


def _clamped(x: torch.Tensor) -> tuple[torch.Tensor]:
    a, b = _halves(x)
    return (functional.silu(a.clamp(max=2.0)) * b.clamp(-2.0, 2.0),)


def _gelu_and_mul(x: torch.Tensor) -> tuple[torch.Tensor]:
    a, b = _halves(x)
    return (functional.gelu(a) * b,)


def _gelu_tanh_and_mul(x: torch.Tensor) -> tuple[torch.Tensor]:
    a, b = _halves(x)
    return (functional.gelu(a, approximate="tanh") * b,)


def _fatrelu_and_mul(x: torch.Tensor) -> tuple[torch.Tensor]:
    a, b = _halves(x)
    return (functional.threshold(a, 0.5, 0.0) * b,)


def _swigluoai(x: torch.Tensor) -> tuple[torch.Tensor]:
    gate, up = x[..., ::2].clamp(max=7.0), x[..., 1::2].clamp(-7.0, 7.0)
    return ((up + 1) * (gate * torch.sigmoid(gate * 1.702)),)


def _gelu_tanh(x: torch.Tensor) -> tuple[torch.Tensor]:
    return (functional.gelu(x, approximate="tanh"),)


def _gelu_quick(x: torch.Tensor) -> tuple[torch.Tensor]:
    return (x * torch.sigmoid(1.702 * x),)


def _relu_squared(x: torch.Tensor) -> tuple[torch.Tensor]:
    return (functional.relu(x).square(),)


#: Op -> PyTorch's function, further arguments of the op, whether it halves the last dimension.
ACTIVATIONS: dict[str, tuple[Any, tuple[float, ...], bool]] = {
    "silu_and_mul": (_silu_and_mul, (), True),
    "mul_and_silu": (_mul_and_silu, (), True),
    "silu_and_mul_with_clamp": (_clamped, (2.0,), True),
    "gelu_and_mul": (_gelu_and_mul, (), True),
    "gelu_tanh_and_mul": (_gelu_tanh_and_mul, (), True),
    "fatrelu_and_mul": (_fatrelu_and_mul, (0.5,), True),
    "swigluoai_and_mul": (_swigluoai, (), True),
    "gelu_tanh": (_gelu_tanh, (), False),
    "gelu_new": (_gelu_tanh, (), False),
    "gelu_fast": (_gelu_tanh, (), False),
    "gelu_quick": (_gelu_quick, (), False),
    "relu_squared": (_relu_squared, (), False),
}


@builds(*ACTIVATIONS)
def _activation(name: str, case: Case, dtype: torch.dtype) -> Workload:
    function, extra, halves = ACTIVATIONS[name]
    tokens, hidden = case.shape["tokens"], case.shape["hidden"]
    x, out = (
        rand(tokens, hidden * (2 if halves else 1), dtype=dtype),
        torch.empty(tokens, hidden, dtype=dtype),
    )
    return simple((name, "_C"), (out, x, *extra), function, (x,), (out,))


@builds("silu_and_mul_quant")
def _silu_and_mul_quant(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens, hidden = case.shape["tokens"], case.shape["hidden"]
    x, scale = rand(tokens, 2 * hidden, dtype=dtype), torch.tensor([0.02])
    out = torch.empty(tokens, hidden, dtype=FP8)

    def in_torch(x: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor]:
        a, b = _halves(x)
        return (to_fp8(functional.silu(a.float()) * b.float(), scale),)

    return simple((name, "_C"), (out, x, scale), in_torch, (x, scale), (out,))


def rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Root mean square normalisation in PyTorch."""
    return functional.rms_norm(x, (x.shape[-1],), weight, EPSILON)


@builds("rms_norm", "fused_add_rms_norm")
def _norm(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens, hidden = case.shape["tokens"], case.shape["hidden"]
    x, weight = rand(tokens, hidden, dtype=dtype), rand(hidden, dtype=dtype)
    if name == "rms_norm":
        out = torch.empty_like(x)
        return simple(
            (name, "_C"), (out, x, weight, EPSILON), lambda x, w: (rms(x, w),), (x, weight), (out,)
        )
    residual = rand(tokens, hidden, dtype=dtype)

    def in_torch(
        x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        total = x + residual
        return rms(total, weight), total

    return simple(
        (name, "_C"), (x, residual, weight, EPSILON), in_torch, (x, residual, weight), (x, residual)
    )


@builds(
    "rms_norm_static_fp8_quant",
    "fused_add_rms_norm_static_fp8_quant",
    "rms_norm_dynamic_per_token_quant",
)
def _norm_quant(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens, hidden = case.shape["tokens"], case.shape["hidden"]
    x, weight = rand(tokens, hidden, dtype=dtype), rand(hidden, dtype=dtype)
    out, scale = torch.empty(tokens, hidden, dtype=FP8), torch.tensor([0.02])
    if name == "rms_norm_static_fp8_quant":
        return simple(
            (name, "_C"),
            (out, x, weight, scale, EPSILON),
            lambda x, w, s: (to_fp8(rms(x, w), s),),
            (x, weight, scale),
            (out,),
        )
    if name == "fused_add_rms_norm_static_fp8_quant":
        residual = rand(tokens, hidden, dtype=dtype)

        def added(
            x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            total = x + residual
            return to_fp8(rms(total, weight), scale), total

        arguments = (out, x, residual, weight, scale, EPSILON)
        return simple((name, "_C"), arguments, added, (x, residual, weight, scale), (out, residual))
    scales = torch.empty(tokens, 1)

    def per_token(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = rms(x.float(), weight.float())
        scales = (y.abs().amax(-1, keepdim=True) / FP8_MAX).clamp(min=1 / (FP8_MAX * 512))
        return to_fp8(y, scales), scales

    return simple(
        (name, "_C"),
        (out, x, weight, scales, EPSILON, None, None),
        per_token,
        (x, weight),
        (out, scales),
    )


@builds("rms_norm_per_block_quant")
def _norm_block_quant(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens, hidden = case.shape["tokens"], case.shape["hidden"]
    x, weight = rand(tokens, hidden, dtype=dtype), rand(hidden, dtype=dtype)
    out, scales = torch.empty(tokens, hidden, dtype=FP8), torch.empty(tokens, hidden // GROUP)

    def in_torch(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        groups = rms(x.float(), weight.float()).unflatten(-1, (-1, GROUP))
        scales = (groups.abs().amax(-1, keepdim=True) / FP8_MAX).clamp(min=1 / (FP8_MAX * 512))
        return to_fp8(groups, scales).flatten(-2), scales.squeeze(-1)

    arguments = (out, x, weight, scales, EPSILON, None, None, GROUP, False)
    return simple((name, "_C"), arguments, in_torch, (x, weight), (out, scales))
