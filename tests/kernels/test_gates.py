# SPDX-License-Identifier: Apache-2.0
"""Activations and gates with parameters, other layouts or quantised results.

test_activation.py tests the common ones.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import row_cases
import torch
from float8 import E4M3
from hypothesis import given
from hypothesis import strategies as st
from row_cases import LEADING, PADS, orders

if TYPE_CHECKING:
    from collections.abc import Callable

    from row_cases import Check, Strided


SHAPES = [*row_cases.SHAPES, (2, 3, 5)]


def clamped(
    gate: torch.Tensor, value: torch.Tensor, limit: float, alpha: float, beta: float
) -> torch.Tensor:
    gate = gate.clamp(max=limit)
    return gate * torch.sigmoid(alpha * gate) * (value.clamp(-limit, limit) + beta)


def halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = x.double().chunk(2, -1)
    return first, second


#: Op -> its parameters, and the reference for x in float64.
GATES: dict[str, tuple[tuple[float, ...], Callable[[torch.Tensor], torch.Tensor]]] = {
    "mul_and_silu": ((), lambda x: halves(x)[0] * torch.nn.functional.silu(halves(x)[1])),
    "fatrelu_and_mul": (
        (0.5,),
        lambda x: torch.nn.functional.threshold(halves(x)[0], 0.5, 0.0) * halves(x)[1],
    ),
    "silu_and_mul_with_clamp": ((2.0, 1.25, 0.5), lambda x: clamped(*halves(x), 2.0, 1.25, 0.5)),
    "swigluoai_and_mul": (
        (1.75, 2.5),
        lambda x: clamped(x.double()[..., 0::2], x.double()[..., 1::2], 2.5, 1.75, 1.0),
    ),
}


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gates(
    ops: Any, check: Check, dtype: torch.dtype, name: str, shape: tuple[int, ...]
) -> None:
    numbers, reference = GATES[name]
    x = (torch.randn(*shape[:-1], 2 * shape[-1]) * 3).to(dtype)
    out = torch.full(shape, math.nan, dtype=dtype)
    getattr(ops, name)(out, x, *numbers)
    check(out, reference(x))


@pytest.mark.parametrize("name", GATES)
@given(
    leading=LEADING,
    width=st.integers(1, 80),
    pads=PADS,
    data=st.data(),
)
def test_strided(
    ops: Any,
    check: Check,
    *,
    strided: Strided,
    dtype: torch.dtype,
    name: str,
    leading: list[int],
    width: int,
    pads: tuple[int, int],
    data: Any,
) -> None:
    x = strided((*leading, 2 * width), dtype, pad=pads[0], order=data.draw(orders(leading)))
    out = strided((*leading, width), dtype, pad=pads[1], order=data.draw(orders(leading)))
    memory = out._base if out._base is not None else out
    before = memory.clone()
    numbers, reference = GATES[name]
    getattr(ops, name)(out, x, *numbers)
    check(out, reference(x))
    out.zero_()
    before.as_strided(out.shape, out.stride(), out.storage_offset()).zero_()
    assert torch.equal(memory, before)


@pytest.mark.parametrize("name", GATES)
def test_large_numbers_and_nan(ops: Any, check: Check, dtype: torch.dtype, name: str) -> None:
    numbers, reference = GATES[name]
    largest = torch.finfo(dtype).max
    special = torch.tensor([0.0, -0.0, largest, -largest, 1e4, -1e4, 0.5, -2.5, math.nan]).to(dtype)
    first, second = (
        t.flatten()
        for t in torch.meshgrid(
            special, torch.tensor([1.0, -1.0, math.nan]).to(dtype), indexing="ij"
        )
    )
    pair = (
        torch.stack((first, second), -1).flatten()
        if name == "swigluoai_and_mul"
        else torch.cat((first, second))
    )
    if name == "mul_and_silu":
        pair = torch.cat((second, first))
    out = torch.empty_like(first)
    getattr(ops, name)(out, pair, *numbers)
    want = reference(pair)
    nan = want.isnan()
    assert torch.equal(out.isnan(), nan)
    # Products beyond the dtype's range are infinite in the dtype and finite in the reference.
    check(
        out[~nan].nan_to_num(posinf=largest, neginf=-largest), want[~nan].clamp(-largest, largest)
    )


def test_defaults_are_upstreams(ops: Any, check: Check) -> None:
    x = torch.randn(3, 20) * 5
    out = torch.empty(3, 10)
    ops.swigluoai_and_mul(out, x)
    check(out, clamped(x.double()[:, 0::2], x.double()[:, 1::2], 7.0, 1.702, 1.0))
    ops.silu_and_mul_with_clamp(out, x, 3.0)
    check(out, clamped(*halves(x), 3.0, 1.0, 0.0))


def test_negative_alpha(ops: Any, check: Check) -> None:
    x = torch.randn(3, 20) * 5
    out = torch.empty(3, 10)
    ops.silu_and_mul_with_clamp(out, x, 3.0, -0.75, 0.0)
    check(out, clamped(*halves(x), 3.0, -0.75, 0.0))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_relu_squared(ops: Any, check: Check, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = (torch.randn(shape) * 3).to(dtype)
    out = torch.full(shape, math.nan, dtype=dtype)
    ops.relu_squared(out, x)
    check(out, x.double().relu().square())
    ops.relu_squared(x, x)
    assert torch.equal(x, out)
    ops.relu_squared(out[:1], torch.full_like(out[:1], math.nan))
    assert out[:1].isnan().all()


@pytest.mark.parametrize("fp8", [E4M3, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_silu_and_mul_quant(
    ops: Any, dtype: torch.dtype, fp8: torch.dtype, shape: tuple[int, ...]
) -> None:
    """Every code is the rounding of a value within float32 arithmetic's error of the exact one."""
    x = (torch.randn(*shape[:-1], 2 * shape[-1]) * 3).to(dtype)
    out, scale = torch.empty(shape, dtype=fp8), torch.tensor([0.0123])
    ops.silu_and_mul_quant(out, x, scale)
    first, second = halves(x)
    want = torch.nn.functional.silu(first) * second / scale.double()
    largest = torch.finfo(fp8).max
    one, other = (
        (want * factor).clamp(-largest, largest).float().to(fp8).double()
        for factor in (1 - 1e-5, 1 + 1e-5)
    )
    assert (out.double() >= one.minimum(other)).all()
    assert (out.double() <= one.maximum(other)).all()


@pytest.mark.parametrize("name", [*GATES, "silu_and_mul_quant"])
def test_bad_arguments(ops: Any, name: str) -> None:
    op, numbers = getattr(ops, name), GATES.get(name, ((torch.ones(1),), None))[0]
    result = E4M3 if name == "silu_and_mul_quant" else torch.float32
    with pytest.raises(
        RuntimeError, match=rf"^{name}: (out|result) has shape \[2, 3\], expected \[2, 4\]"
    ):
        op(torch.empty(2, 3, dtype=result), torch.empty(2, 8), *numbers)
    with pytest.raises(
        RuntimeError, match=rf"^{name}: input has shape \[2, 7\], expected an even last dimension"
    ):
        op(torch.empty(2, 3, dtype=result), torch.empty(2, 7), *numbers)
    with pytest.raises(RuntimeError, match=rf"^{name}: (out|result) is of dtype Half"):
        op(torch.empty(2, 4).half(), torch.empty(2, 8), *numbers)
    with pytest.raises(RuntimeError, match=rf"^{name}: input has strides \[16, 2\]"):
        op(torch.empty(2, 4, dtype=result), torch.empty(2, 16)[:, ::2], *numbers)
    with pytest.raises(RuntimeError, match=rf"^{name}: (out|result) has strides \[0, 1\]"):
        op(torch.empty(1, 4, dtype=result).expand(2, 4), torch.empty(2, 8), *numbers)


def test_bad_scale(ops: Any) -> None:
    out = torch.empty(2, 4, dtype=E4M3)
    with pytest.raises(
        RuntimeError, match=r"^silu_and_mul_quant: scale has shape \[2\], expected one element"
    ):
        ops.silu_and_mul_quant(out, torch.empty(2, 8), torch.ones(2))
    with pytest.raises(
        RuntimeError, match=r"^silu_and_mul_quant: scale is of dtype Half, expected Float"
    ):
        ops.silu_and_mul_quant(out, torch.empty(2, 8), torch.ones(1).half())
