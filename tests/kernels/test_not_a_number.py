# SPDX-License-Identifier: Apache-2.0
"""How ops treat NaN, in every lane: scales ignore it, and elements keep it.

The header of each kernel documents the op's rule. csrc/core/reduce-inl.h explains how reductions
keep it on every target. test_not_a_number_choices.py tests ops that choose elements,
test_not_a_number_attention.py ops with a softmax.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import float8
import pytest
import torch
from float8 import E4M3
from nan_rows import (
    FLT_MAX,
    rows_of_each_width,  # noqa: F401 - a fixture
)

if TYPE_CHECKING:
    from collections.abc import Callable

    RowsWithNan = Callable[..., torch.Tensor]

#: Same as in conftest.py. Some ops are for GPUs only, some for the CPU only.
DEVICE = os.environ.get("KERNEL_TEST_DEVICE", "cpu")
only_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="the library for the CPU has no such op")
LARGEST = {**float8.LARGEST, torch.int8: 127.0}
SCALED = {**float8.SCALED, torch.int8: 127.0}
FP8 = [E4M3, torch.float8_e5m2]


def same(got: torch.Tensor, want: torch.Tensor) -> None:
    """Equal numbers; NaN in the same places, with any sign and payload."""
    assert got.dtype == want.dtype
    torch.testing.assert_close(got.double(), want.double(), rtol=0, atol=0, equal_nan=True)


def codes(quotient: torch.Tensor, to: torch.dtype) -> torch.Tensor:
    """Round to nearest, ties to even, and saturate; NaN stays NaN and becomes 0 in int8."""
    if to == torch.int8:
        return quotient.round().clamp(-128, 127).nan_to_num(0.0).to(to)
    return quotient.clamp(-LARGEST[to], LARGEST[to]).to(to)


def numbers(x: torch.Tensor, instead: float = 0.0) -> torch.Tensor:
    return torch.where(x.isnan(), instead, x.float())


def magnitude(x: torch.Tensor) -> torch.Tensor:
    """The largest magnitude of each row, without NaN; 0 if there are only NaN."""
    return numbers(x).abs().amax(-1)


def inverse(scale: torch.Tensor) -> torch.Tensor:
    return (1.0 / scale).clamp(max=FLT_MAX)


@pytest.mark.parametrize("to", FP8, ids=str)
def test_static_fp8(ops: Any, x: torch.Tensor, to: torch.dtype) -> None:
    out = torch.empty(x.shape, dtype=to)
    ops.static_scaled_fp8_quant(out, x, torch.tensor([0.25]))
    same(out, codes(x.float() * 4, to))


def test_static_int8(ops: Any, x: torch.Tensor) -> None:
    out = torch.empty(x.shape, dtype=torch.int8)
    ops.static_scaled_int8_quant(out, x, torch.tensor([0.25]), None)
    same(out, codes(x.float() * 4, torch.int8))
    ops.static_scaled_int8_quant(
        out, x, torch.tensor([0.25]), torch.tensor([-7], dtype=torch.int32)
    )
    same(out, (numbers((x.float() * 4).round()) - 7).clamp(-128, 127).to(torch.int8))


@pytest.mark.parametrize("to", FP8, ids=str)
def test_dynamic_fp8(
    ops: Any, rows_with_nan: RowsWithNan, dtype: torch.dtype, to: torch.dtype
) -> None:
    """There is one scale for everything, so each row is a separate tensor."""
    for row in rows_with_nan(150, dtype, positions=40).split(1):
        out, scale = torch.empty(row.shape, dtype=to), torch.empty(1)
        ops.dynamic_scaled_fp8_quant(out, row, scale)
        same(scale, magnitude(row) / SCALED[to])
        same(out, codes(row.float() * inverse(scale), to))


@pytest.mark.parametrize("to", FP8, ids=str)
@pytest.mark.parametrize("bound", [None, 1.5, math.nan])
def test_per_token_fp8(ops: Any, x: torch.Tensor, to: torch.dtype, bound: float | None) -> None:
    """A NaN bound has no effect."""
    out, scale = torch.empty(x.shape, dtype=to), torch.empty(len(x), 1)
    ops.dynamic_per_token_scaled_fp8_quant(
        out, x, scale, None if bound is None else torch.tensor([bound])
    )
    largest = magnitude(x) if bound is None or math.isnan(bound) else magnitude(x).clamp(max=bound)
    same(scale[:, 0], (largest / SCALED[to]).clamp(min=1 / (512 * SCALED[to])))
    same(out, codes(x.float() / scale, to))


def test_symmetric_int8(ops: Any, x: torch.Tensor) -> None:
    out, scale = torch.empty(x.shape, dtype=torch.int8), torch.empty(len(x))
    ops.dynamic_scaled_int8_quant(out, x, scale, None)
    same(scale, magnitude(x) / 127)
    factor = torch.where(magnitude(x) == 0, 0.0, torch.tensor(127.0) / magnitude(x))
    same(out, codes(x.float() * factor[:, None], torch.int8))


def test_asymmetric_int8(ops: Any, x: torch.Tensor) -> None:
    out, scale, azp = (
        torch.empty(x.shape, dtype=torch.int8),
        torch.empty(len(x)),
        torch.empty(len(x), dtype=torch.int32),
    )
    ops.dynamic_scaled_int8_quant(out, x, scale, azp)
    least, largest = numbers(x, math.inf).amin(-1), numbers(x, -math.inf).amax(-1)
    none = x.isnan().all(-1)
    alike = (least == largest) | none
    least, largest = (torch.where(none, 0.0, extreme) for extreme in (least, largest))
    least, largest = (
        torch.where(alike, least.clamp(max=0), least),
        torch.where(alike, largest.clamp(min=0), largest),
    )
    same(scale, (largest - least) / 255)
    zero = torch.where(scale == 0, 0.0, (-128 - least / scale).round())
    same(azp, numbers(zero).to(torch.int32))
    factor = torch.where(scale == 0, 0.0, 1 / scale)
    rounded = numbers((x.float() * factor[:, None]).round())
    same(out, (rounded + azp[:, None]).clamp(-128, 127).to(torch.int8))


#: Only float8 has power-of-two scales.
SCALES = [*((to, False) for to in LARGEST), *((to, True) for to in FP8)]


@pytest.mark.parametrize(("to", "power_of_two"), SCALES, ids=str)
@pytest.mark.parametrize("size", [16, 33])
def test_groups(
    ops: Any,
    rows_with_nan: RowsWithNan,
    dtype: torch.dtype,
    to: torch.dtype,
    size: int,
    *,
    power_of_two: bool,
) -> None:
    x = rows_with_nan(4 * size, dtype)
    out, scale = torch.empty(x.shape, dtype=to), torch.empty(len(x), 4)
    low, high = (-128.0, 127.0) if to == torch.int8 else (-LARGEST[to], LARGEST[to])
    if to == torch.int8:
        ops.per_token_group_quant_int8(x, out, scale, size, 1e-10, low, high)
    else:
        ops.per_token_group_fp8_quant(
            x, out, scale, size, 1e-10, low, high, power_of_two, False, False
        )
    want = magnitude(x.unflatten(-1, (4, size))).clamp(min=1e-10) / high
    if power_of_two:
        want = want.clamp(min=1e-10).double().log2().ceil().exp2().float()
    same(scale, want)
    quotient = x.float() / scale.repeat_interleave(size, -1)
    # Upstream converts to int8 like C, towards zero.
    same(out, codes(quotient.clamp(low, high).trunc() if to == torch.int8 else quotient, to))


def normalise(
    ops: Any, x: torch.Tensor, weight: torch.Tensor, to: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    out, scale = torch.empty(x.shape, dtype=to), torch.empty(len(x))
    ops.rms_norm_dynamic_per_token_quant(out, x, weight, scale, 1e-6, None, None)
    return out, scale


@pytest.mark.parametrize("to", LARGEST, ids=str)
def test_norm_of_nan(ops: Any, x: torch.Tensor, to: torch.dtype) -> None:
    """NaN makes its whole row NaN, so the scale is the smallest one."""
    out, scale = normalise(ops, x, torch.ones(x.shape[1], dtype=x.dtype), to)
    same(scale, torch.full_like(scale, 2**-23 if to == torch.int8 else 1 / (512 * SCALED[to])))
    same(out, codes(torch.full(x.shape, math.nan), to))


@pytest.mark.parametrize("to", LARGEST, ids=str)
def test_norm_with_a_weight_of_nan(
    ops: Any, rows_with_nan: RowsWithNan, dtype: torch.dtype, to: torch.dtype
) -> None:
    """The result equals that of a zero weight, except for the NaN element."""
    x = torch.randn(2, 67).to(dtype)
    for weight in rows_with_nan(67, dtype, positions=None)[::7]:
        nan = weight.isnan()
        if weight.isinf().any():
            continue
        out, scale = normalise(ops, x, weight, to)
        want, want_scale = normalise(
            ops, x, torch.where(nan, torch.zeros((), dtype=dtype), weight), to
        )
        same(scale, want_scale)
        same(out, torch.where(nan, codes(torch.tensor(math.nan), to), want))


@only_gpu
@pytest.mark.parametrize("to", LARGEST, ids=str)
@pytest.mark.parametrize("size", [16, 33])
def test_norm_by_blocks(ops: Any, dtype: torch.dtype, to: torch.dtype, size: int) -> None:
    x = torch.randn(2, 4 * size).to(dtype)

    def run(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out, scale = torch.empty(x.shape, dtype=to), torch.empty(2, 4)
        ops.rms_norm_per_block_quant(out, x, weight, scale, 1e-6, None, None, size, False)
        return out, scale

    for place in range(4 * size):
        weight = torch.ones(4 * size, dtype=dtype)
        weight[place] = math.nan
        nan = weight.isnan()
        out, scale = run(weight)
        want, want_scale = run(torch.where(nan, torch.zeros((), dtype=dtype), weight))
        same(scale, want_scale)
        same(out, torch.where(nan, codes(torch.tensor(math.nan), to), want))


@only_gpu
@pytest.mark.parametrize("form", ["ue8m0", ""])
def test_indexer(rows_with_nan: RowsWithNan, dtype: torch.dtype, form: str) -> None:
    k = rows_with_nan(48, dtype, positions=20)
    cache = torch.zeros(1, len(k) + 4, 48 + 8, dtype=torch.uint8)
    torch.ops._C_cache_ops.indexer_k_quant_and_cache(k, cache, torch.arange(len(k)), 24, form)
    flat = cache.flatten()
    keys, scales = (
        flat[: cache.shape[1] * 48].view(-1, 48)[: len(k)],
        flat[cache.shape[1] * 48 :].view(torch.float32).view(-1, 2)[: len(k)],
    )
    want = magnitude(k.unflatten(-1, (2, 24))).clamp(min=1e-4) / SCALED[E4M3]
    if form == "ue8m0":
        want = want.double().log2().ceil().exp2().float()
    same(scales, want)
    same(
        keys.contiguous().view(E4M3),
        codes(k.float() / want.repeat_interleave(24, -1), E4M3),
    )


ACTIVATIONS = ["gelu_new", "gelu_fast", "gelu_quick", "gelu_tanh", "relu_squared"]
GATES: dict[str, tuple[float, ...]] = {
    "silu_and_mul": (),
    "gelu_and_mul": (),
    "gelu_tanh_and_mul": (),
    "mul_and_silu": (),
    "fatrelu_and_mul": (0.5,),
    "silu_and_mul_with_clamp": (2.0, 1.25, 0.5),
    "swigluoai_and_mul": (1.75, 2.5),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(ops: Any, x: torch.Tensor, name: str) -> None:
    x = x.nan_to_num(math.nan, posinf=1.0, neginf=-1.0)
    out = torch.empty_like(x)
    getattr(ops, name)(out, x)
    assert torch.equal(out.isnan(), x.isnan())


@pytest.mark.parametrize("name", [*GATES, "silu_and_mul_quant"])
@pytest.mark.parametrize("side", [0, 1])
def test_gates(ops: Any, x: torch.Tensor, name: str, side: int) -> None:
    """NaN in the gate or in the value."""
    x = x.masked_fill(x.isinf(), 1.0)
    pair = torch.stack(
        (x, torch.ones_like(x)) if side == 0 else (torch.ones_like(x), x),
        -1 if name == "swigluoai_and_mul" else -2,
    )
    quantised = name == "silu_and_mul_quant"
    out = torch.empty(x.shape, dtype=E4M3 if quantised else x.dtype)
    getattr(ops, name)(out, pair.flatten(-2), *((torch.ones(1),) if quantised else GATES[name]))
    assert torch.equal(out.double().isnan(), x.isnan())


def test_fp8_cache(x: torch.Tensor) -> None:
    out = torch.empty(x.shape, dtype=torch.uint8)
    torch.ops._C_cache_ops.convert_fp8(out, x, 1.0, "fp8")
    same(out.view(E4M3), codes(x.float(), E4M3))
