# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import float8
import pytest
import torch
from float8 import E4M3
from hypothesis import given
from hypothesis import strategies as st
from row_cases import LEADING, PADS, orders

if TYPE_CHECKING:
    from row_cases import Strided


SHAPES = [(1, 1), (1, 7), (3, 16), (5, 64), (83, 769), (7, 5125), (2, 4096), (0, 64), (2, 3, 33)]
LARGEST = {**float8.LARGEST, torch.int8: 127.0}
SCALED = {**float8.SCALED, torch.int8: 127.0}
FP8 = [E4M3, torch.float8_e5m2]


def normed(x: torch.Tensor, weight: torch.Tensor, epsilon: float = 1e-6) -> torch.Tensor:
    x = x.double()
    return x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt() * weight.double()


def quantized(values: torch.Tensor, to: torch.dtype) -> torch.Tensor:
    if to == torch.int8:
        return values.round().clamp(-128, 127)
    return values.clamp(-LARGEST[to], LARGEST[to]).float().to(to).double()


def check(got: torch.Tensor, want: torch.Tensor) -> None:
    """Every code is the rounding of a value within float32 arithmetic's error of the exact one."""
    one, other = quantized(want * (1 - 1e-5), got.dtype), quantized(want * (1 + 1e-5), got.dtype)
    assert (got.double() >= one.minimum(other)).all()
    assert (got.double() <= one.maximum(other)).all()


def make(
    shape: tuple[int, ...], dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        (torch.randn(shape) * 3).to(dtype),
        torch.randn(shape).to(dtype),
        torch.randn(shape[-1]).to(dtype),
    )


@pytest.mark.parametrize("fp8", FP8, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_static(ops: Any, dtype: torch.dtype, fp8: torch.dtype, shape: tuple[int, ...]) -> None:
    x, residual, weight = make(shape, dtype)
    out, scale = torch.empty(shape, dtype=fp8), torch.tensor([0.037])
    ops.rms_norm_static_fp8_quant(out, x, weight, scale, 1e-6)
    check(out, normed(x, weight) / scale.double())
    total, kept = x + residual, x.clone()
    ops.fused_add_rms_norm_static_fp8_quant(out, x, residual, weight, scale, 1e-6)
    assert torch.equal(residual, total)
    assert torch.equal(x, kept)
    alone = torch.empty_like(out)
    ops.rms_norm_static_fp8_quant(alone, total, weight, scale, 1e-6)
    assert torch.equal(out.view(torch.uint8), alone.view(torch.uint8))


def check_dynamic(
    ops: Any,
    out: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    residual: torch.Tensor | None,
    bound: float | None,
) -> None:
    total = x if residual is None else x + residual
    scale = torch.full(x.shape[:-1], math.nan)
    ops.rms_norm_dynamic_per_token_quant(
        out, x, weight, scale, 1e-6, None if bound is None else torch.tensor([bound]), residual
    )
    if residual is not None:
        assert torch.equal(residual, total)
    want = normed(total, weight)
    largest = SCALED[out.dtype]
    least = 2**-23 if out.dtype == torch.int8 else 1 / (512 * largest)
    want_scale = (want.abs().amax(-1).clamp(max=bound or math.inf) / largest).clamp(min=least)
    torch.testing.assert_close(scale.double(), want_scale, rtol=1e-5, atol=0)
    check(out, want / scale.double()[..., None])


@pytest.mark.parametrize("to", LARGEST, ids=str)
@pytest.mark.parametrize("with_residual", [False, True], ids=["alone", "residual"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dynamic(
    ops: Any, dtype: torch.dtype, *, to: torch.dtype, with_residual: bool, shape: tuple[int, ...]
) -> None:
    x, residual, weight = make(shape, dtype)
    out = torch.empty(shape, dtype=to)
    check_dynamic(ops, out, x, weight, residual if with_residual else None, None)
    if to != torch.int8:
        check_dynamic(ops, out, x, weight, None, 0.8)


@given(
    leading=LEADING,
    width=st.integers(1, 150),
    pads=PADS,
    data=st.data(),
)
def test_strided(
    ops: Any,
    *,
    strided: Strided,
    dtype: torch.dtype,
    leading: list[int],
    width: int,
    pads: tuple[int, int],
    data: Any,
) -> None:
    x, residual = (
        strided((*leading, width), dtype, pad=pad, order=data.draw(orders(leading))) for pad in pads
    )
    to = data.draw(st.sampled_from(list(LARGEST)))
    out = strided((*leading, width), to, pad=pads[1], order=data.draw(orders(leading)))
    weight = torch.randn(width).to(dtype)
    check_dynamic(ops, out, x, weight, residual, None)
    if to != torch.int8:
        ops.rms_norm_static_fp8_quant(out, x, weight, torch.tensor(0.1), 1e-6)
        check(out, normed(x, weight) / torch.tensor(0.1).double())


@pytest.mark.parametrize("to", LARGEST, ids=str)
def test_zeros_have_the_least_scale(ops: Any, dtype: torch.dtype, to: torch.dtype) -> None:
    x, weight = torch.zeros(2, 37, dtype=dtype), torch.ones(37, dtype=dtype)
    check_dynamic(ops, torch.empty(2, 37, dtype=to), x, weight, None, None)


def test_not_a_number_stays_in_its_row(ops: Any, dtype: torch.dtype) -> None:
    x, weight = torch.ones(3, 50, dtype=dtype), torch.ones(50, dtype=dtype)
    x[1, 7] = math.nan
    out, scale = torch.empty(3, 50, dtype=E4M3), torch.empty(3)
    ops.rms_norm_dynamic_per_token_quant(out, x, weight, scale, 1e-6, None, None)
    assert out[1].double().isnan().all()
    assert out[[0, 2]].double().isfinite().all()
    assert scale[[0, 2]].isfinite().all()


def call(ops: Any, name: str, changes: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {
        "result": torch.empty(3, 8, dtype=E4M3),
        "input": torch.ones(3, 8),
        "weight": torch.ones(8),
        "scale": torch.ones(3) if "dynamic" in name else torch.ones(1),
        "epsilon": 1e-6,
    }
    if "dynamic" in name:
        arguments |= {"scale_ub": None, "residual": None}
    if "fused" in name:
        arguments["residual"] = torch.ones(3, 8)
    getattr(ops, name)(**(arguments | changes))


NAMES = [
    "rms_norm_static_fp8_quant",
    "fused_add_rms_norm_static_fp8_quant",
    "rms_norm_dynamic_per_token_quant",
]
BAD = {
    "result of other shape": (
        {"result": torch.empty(3, 7, dtype=E4M3)},
        r"result has shape \[3, 7\], expected \[3, 8\]",
    ),
    "result of floats": (
        {"result": torch.empty(3, 8)},
        "result is of dtype Float, expected Float8_e4m3fn",
    ),
    "result of another device": (
        {"result": torch.empty(3, 8, dtype=float8.FOREIGN)},
        f"result {float8.REFUSED}",
    ),
    "weight too short": ({"weight": torch.ones(7)}, r"weight has shape \[7\], expected \[8\]"),
    "weight of other dtype": (
        {"weight": torch.ones(8).half()},
        "weight is of dtype Half, expected Float",
    ),
    "integers": ({"input": torch.ones(3, 8).int()}, "input is of dtype Int"),
    "half scale": ({"scale": torch.ones(3).half()}, "scale is of dtype Half"),
    "two scales": ({"scale": torch.ones(2)}, r"scale has shape \[2\]"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(ops: Any, name: str, case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(RuntimeError, match=f"^{name}: {message}"):
        call(ops, name, changes)


@pytest.mark.parametrize("name", NAMES[1:])
def test_bad_residual(ops: Any, name: str) -> None:
    with pytest.raises(
        RuntimeError, match=rf"^{name}: residual has shape \[3, 7\], expected \[3, 8\]"
    ):
        call(ops, name, {"residual": torch.ones(3, 7)})
    with pytest.raises(RuntimeError, match=rf"^{name}: residual is of dtype Half, expected Float"):
        call(ops, name, {"residual": torch.ones(3, 8).half()})
    with pytest.raises(RuntimeError, match=rf"^{name}: residual has strides \[0, 1\]"):
        call(ops, name, {"residual": torch.ones(1, 8).expand(3, 8)})


def test_no_bound_with_int8(ops: Any) -> None:
    with pytest.raises(
        RuntimeError,
        match="scale_ub is given with a result of dtype Char, expected none, or a float8 result",
    ):
        call(
            ops,
            NAMES[2],
            {"result": torch.empty(3, 8, dtype=torch.int8), "scale_ub": torch.ones(1)},
        )
