# SPDX-License-Identifier: Apache-2.0
"""Ops on rows: activations, norms, quantisation, rotary embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from kernels.workload import FP8, Workload, builds, rand, simple, size

if TYPE_CHECKING:
    from kernels.cases import Case

EPSILON = 1e-6
FP8_MAX = torch.finfo(FP8).max
GROUP = 128


def _fp8(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (x.float() / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8)


def _int8(x: torch.Tensor) -> torch.Tensor:
    return x.round().clamp(-128, 127).to(torch.int8)


# ---------------------------------------------------------------------------------------------------------------------
# activations
def _halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.chunk(2, dim=-1)  # type: ignore[return-value]


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


#: In PyTorch, what the op takes beyond the tensors, whether it halves the last dimension.
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
        return (_fp8(functional.silu(a.float()) * b.float(), scale),)

    return simple((name, "_C"), (out, x, scale), in_torch, (x, scale), (out,))


# ---------------------------------------------------------------------------------------------------------------------------
# norms
def _rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(x, (x.shape[-1],), weight, EPSILON)


@builds("rms_norm", "fused_add_rms_norm")
def _norm(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens, hidden = case.shape["tokens"], case.shape["hidden"]
    x, weight = rand(tokens, hidden, dtype=dtype), rand(hidden, dtype=dtype)
    if name == "rms_norm":
        out = torch.empty_like(x)
        return simple(
            (name, "_C"), (out, x, weight, EPSILON), lambda x, w: (_rms(x, w),), (x, weight), (out,)
        )
    residual = rand(tokens, hidden, dtype=dtype)

    def in_torch(
        x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        total = x + residual
        return _rms(total, weight), total

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
        arguments = (out, x, weight, scale, EPSILON)
        return simple(
            (name, "_C"),
            arguments,
            lambda x, w, s: (_fp8(_rms(x, w), s),),
            (x, weight, scale),
            (out,),
        )
    if name == "fused_add_rms_norm_static_fp8_quant":
        residual = rand(tokens, hidden, dtype=dtype)

        def added(
            x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            total = x + residual
            return _fp8(_rms(total, weight), scale), total

        arguments = (out, x, residual, weight, scale, EPSILON)
        return simple((name, "_C"), arguments, added, (x, residual, weight, scale), (out, residual))
    scales = torch.empty(tokens, 1)

    def per_token(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = _rms(x.float(), weight.float())
        scales = (y.abs().amax(-1, keepdim=True) / FP8_MAX).clamp(min=1 / (FP8_MAX * 512))
        return _fp8(y, scales), scales

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
        groups = _rms(x.float(), weight.float()).unflatten(-1, (-1, GROUP))
        scales = (groups.abs().amax(-1, keepdim=True) / FP8_MAX).clamp(min=1 / (FP8_MAX * 512))
        return _fp8(groups, scales).flatten(-2), scales.squeeze(-1)

    arguments = (out, x, weight, scales, EPSILON, None, None, GROUP, False)
    return simple((name, "_C"), arguments, in_torch, (x, weight), (out, scales))


# --------------------------------------------------------------------------------------------------------------------------
# rotary
HEADS, KV_HEADS, HEAD, POSITIONS = 32, 8, 128, 8192


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, neox: bool) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1) if neox else (x[..., ::2], x[..., 1::2])
    turned = (a * cos - b * sin, b * cos + a * sin)
    return torch.cat(turned, dim=-1) if neox else torch.stack(turned, dim=-1).flatten(-2)


def _angles(dtype: torch.dtype) -> torch.Tensor:
    angle = torch.arange(POSITIONS)[:, None] / 10000 ** (torch.arange(0, HEAD, 2) / HEAD)
    return torch.cat((angle.cos(), angle.sin()), dim=-1).to(dtype)


@builds("rotary_embedding")
def _rotary(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens, neox = case.shape["tokens"], case.variant == "neox"
    query, key = rand(tokens, HEADS * HEAD, dtype=dtype), rand(tokens, KV_HEADS * HEAD, dtype=dtype)
    positions, cache = torch.randint(POSITIONS, (tokens,)), _angles(dtype)

    def in_torch(
        query: torch.Tensor, key: torch.Tensor, positions: torch.Tensor, cache: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        cos, sin = cache[positions].unsqueeze(1).chunk(2, dim=-1)
        return tuple(
            _rotate(x.view(tokens, -1, HEAD), cos, sin, neox=neox).reshape(x.shape)
            for x in (query, key)
        )

    arguments = (positions, query, key, HEAD, cache, neox)
    return simple(
        (name, "_C"),
        arguments,
        in_torch,
        (query, key, positions, cache),
        (query, key),
        reads=size(query, key),
    )


@builds("fused_qk_norm_rope")
def _qk_norm_rope(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens = case.shape["tokens"]
    qkv = rand(tokens, (HEADS + 2 * KV_HEADS) * HEAD, dtype=dtype)
    weights, positions, cache = (
        rand(2, HEAD, dtype=dtype),
        torch.randint(POSITIONS, (tokens,)),
        _angles(dtype),
    )

    def in_torch(
        qkv: torch.Tensor, weights: torch.Tensor, positions: torch.Tensor, cache: torch.Tensor
    ) -> tuple[torch.Tensor]:
        cos, sin = cache[positions].float().unsqueeze(1).chunk(2, dim=-1)
        heads = qkv.view(tokens, -1, HEAD)
        q, k, v = heads.split((HEADS, KV_HEADS, KV_HEADS), dim=1)
        q, k = (
            _rotate(_rms(x.float(), w.float()), cos, sin, neox=True).to(dtype)
            for x, w in ((q, weights[0]), (k, weights[1]))
        )
        return (torch.cat((q, k, v), dim=1).view(tokens, -1),)

    arguments = (
        qkv,
        HEADS,
        KV_HEADS,
        KV_HEADS,
        HEAD,
        EPSILON,
        weights[0],
        weights[1],
        cache,
        True,
        positions,
    )
    touched = size(qkv) * (HEADS + KV_HEADS) // (HEADS + 2 * KV_HEADS)
    return simple(
        (name, "_C"),
        arguments,
        in_torch,
        (qkv, weights, positions, cache),
        (qkv,),
        reads=touched,
        writes=touched,
    )


# --------------------------------------------------------------------------------------------------------------------
# quantisation
def _dynamic_fp8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = (x.abs().amax().float() / FP8_MAX).view(1)
    return _fp8(x, scale), scale


def _token_fp8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = (x.abs().amax(-1, keepdim=True).float() / FP8_MAX).clamp(min=1 / (FP8_MAX * 512))
    return _fp8(x, scale), scale


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
    return _fp8(groups, scale).view(x.shape), scale.squeeze(-1)


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
    # Upstream's kernel for GPUs raises the scale that it finds, so that one starts at nothing.
    one, zero = torch.tensor([0.02]), torch.zeros(1)
    per_token, per_group = torch.empty(tokens, 1), torch.empty(tokens, hidden // GROUP)
    azp = torch.empty(tokens, 1, dtype=torch.int32)
    if name == "static_scaled_fp8_quant":
        return simple(call, (out, x, one), lambda x, s: (_fp8(x, s),), (x, one), (out,))
    if name == "static_scaled_int8_quant":
        return simple(
            call, (out, x, one, None), lambda x, s: (_int8(x.float() / s),), (x, one), (out,)
        )
    arguments, function, results = {
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
    }[name]
    if case.variant == "azp":
        arguments, function, results = (
            (out, x, per_token, azp),
            _token_int8_azp,
            (out, per_token, azp),
        )
    return simple(call, arguments, function, (x,), results)
