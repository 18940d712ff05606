# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import row_cases
import torch
from float8 import E4M3, FNUZ, LARGEST, SCALED
from hypothesis import given
from hypothesis import strategies as st
from row_cases import LEADING, PADS, orders

if TYPE_CHECKING:
    from row_cases import Strided


SHAPES = [*row_cases.SHAPES, (2, 3, 35)]


@pytest.fixture(params=list(LARGEST), ids=["e4m3", "e5m2"], scope="session")
def fp8(request: pytest.FixtureRequest) -> torch.dtype:
    chosen: torch.dtype = request.param
    return chosen


def finite(fp8: torch.dtype) -> torch.Tensor:
    """All numbers with a positive sign that are finite, in order."""
    positive = torch.arange(0x80, dtype=torch.uint8).view(fp8).float()
    return positive[positive.isfinite()]


def codes_of(values: torch.Tensor, fp8: torch.dtype) -> torch.Tensor:
    """Codes of float64 values, found in the list of all numbers.

    The code is the nearest number, ties to even, saturated.
    """
    numbers = finite(fp8).double()
    magnitude = values.abs().clamp(max=LARGEST[fp8]).contiguous()
    upper = torch.searchsorted(numbers, magnitude).clamp(max=len(numbers) - 1)
    lower = (upper - 1).clamp(min=0)
    to_lower, to_upper = magnitude - numbers[lower], numbers[upper] - magnitude
    take_lower = (to_lower < to_upper) | ((to_lower == to_upper) & (lower % 2 == 0))
    code = torch.where(take_lower, lower, upper)
    if fp8 == torch.float8_e4m3fnuz:
        code = torch.where(values.signbit() & (code != 0), code + 0x80, code)
        return torch.where(values.isnan(), 0x80, code).to(torch.uint8)
    code = torch.where(values.isnan(), 0x7F, code)
    return torch.where(values.signbit(), code + 0x80, code).to(torch.uint8)


def assert_codes(got: torch.Tensor, want: torch.Tensor, fp8: torch.dtype) -> None:
    """Codes are equal; NaN may have any sign and payload."""
    assert got.dtype == fp8
    want = codes_of(want, fp8)
    number = ~want.view(fp8).double().isnan()
    assert torch.equal(got.double().isnan(), ~number)
    assert torch.equal(got.view(torch.uint8)[number], want[number])


def divided(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Product in float32 with the float32 reciprocal, as the static op defines it."""
    return (x.float() * (1 / scale)).double()


def static(ops: Any, x: torch.Tensor, fp8: torch.dtype, scale: float = 1.0) -> torch.Tensor:
    out = torch.full(x.shape, 0x5A, dtype=torch.uint8).view(fp8)
    ops.static_scaled_fp8_quant(out, x, torch.tensor([scale]))
    return out


def test_the_reference_knows_the_format(fp8: torch.dtype) -> None:
    """Within the range, torch's conversion is the same function."""
    x = torch.randn(10000) * torch.tensor([1e-4, 1e-2, 1.0, 50.0]).repeat(2500)
    assert torch.equal(codes_of(x.double(), fp8), x.to(fp8).view(torch.uint8))


@pytest.mark.parametrize("copies", [1, 37], ids=["tail", "vectors"])
def test_every_code_survives(ops: Any, fp8: torch.dtype, dtype: torch.dtype, copies: int) -> None:
    """All 256 codes come back unchanged; every dtype represents them exactly."""
    codes = torch.arange(256, dtype=torch.uint8)
    values = codes.view(fp8).to(dtype)
    rows = values.repeat(copies)[:, None] if copies == 1 else values.repeat(copies)[None]
    assert_codes(static(ops, rows, fp8), rows.double(), fp8)


@pytest.mark.parametrize("width", [1, 64], ids=["tail", "vectors"])
def test_every_rounding_boundary(ops: Any, fp8: torch.dtype, width: int) -> None:
    """Rounding of all numbers and all midpoints, of their float32 neighbours, and beyond the range.

    Both signs are tested.
    """
    numbers = finite(fp8)
    edge = torch.cat(
        [
            numbers,
            (numbers[1:] + numbers[:-1]) / 2,
            numbers[-1:] * torch.tensor([1.01, 1.0625, 1.125, 2, 1e30]),
        ]
    )
    values = torch.cat(
        [
            edge,
            torch.nextafter(edge, torch.tensor(math.inf)),
            torch.nextafter(edge, torch.tensor(-1.0)),
        ]
    )
    values = torch.cat(
        [values, torch.tensor([math.inf, math.nan, 1e-45, 1e-38, torch.finfo(torch.float32).max])]
    )
    values = torch.cat([values, -values])
    rows = values[:, None].expand(-1, width).contiguous()
    assert_codes(static(ops, rows, fp8), rows.double(), fp8)


@pytest.mark.parametrize("scale", [1.0, 0.037, 300.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_scale(
    ops: Any, fp8: torch.dtype, dtype: torch.dtype, shape: tuple[int, ...], scale: float
) -> None:
    x = (torch.randn(shape) * 20).to(dtype)
    assert_codes(static(ops, x, fp8, scale), divided(x, torch.tensor(scale)), fp8)


@pytest.mark.parametrize(
    ("group", "shape"),
    [
        ((-1, 1), (12, 96)),
        ((1, -1), (12, 96)),
        ((1, 32), (12, 96)),
        ((1, 16), (5, 48)),
        ((4, 3), (12, 33)),
        ((6, 48), (12, 96)),
        ((-1, 7), (3, 21)),
    ],
    ids=str,
)
@pytest.mark.parametrize("explicit", [True, False], ids=["group_shape", "inferred"])
def test_groups(
    ops: Any,
    fp8: torch.dtype,
    dtype: torch.dtype,
    *,
    group: tuple[int, int],
    shape: tuple[int, int],
    explicit: bool,
) -> None:
    rows, columns = (size if g == -1 else g for g, size in zip(group, shape, strict=True))
    x = (torch.randn(shape) * 20).to(dtype)
    scale = (torch.rand(shape[0] // rows, shape[1] // columns) + 0.1).t().contiguous().t()
    out = torch.empty(shape, dtype=fp8)
    ops.static_scaled_fp8_quant(out, x, scale, list(group) if explicit else None)
    want = divided(x, scale.repeat_interleave(rows, 0).repeat_interleave(columns, 1))
    assert_codes(out, want, fp8)
    if explicit and 1 in scale.shape:
        again = torch.empty(shape, dtype=fp8)
        ops.static_scaled_fp8_quant(again, x, scale.flatten(), list(group))
        assert torch.equal(again.view(torch.uint8), out.view(torch.uint8))


def test_columns_over_threads(ops: Any) -> None:
    """Threads begin within a row of scales."""
    x, scale = torch.randn(3, 30011) * 20, torch.rand(3, 30011) + 0.1
    out = torch.empty(x.shape, dtype=E4M3)
    ops.static_scaled_fp8_quant(out, x, scale, [1, 1])
    assert_codes(out, divided(x, scale), E4M3)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dynamic(ops: Any, fp8: torch.dtype, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = (torch.randn(shape) * 20).to(dtype)
    out, scale = torch.empty(shape, dtype=fp8), torch.full((1,), math.nan)
    ops.dynamic_scaled_fp8_quant(out, x, scale)
    want = x.float().abs().max() / SCALED[fp8] if x.numel() else torch.tensor(0.0)
    assert torch.equal(scale[0], want)
    if x.numel():
        assert_codes(out, divided(x, scale), fp8)


def per_token_scale(x: torch.Tensor, fp8: torch.dtype, bound: float = math.inf) -> torch.Tensor:
    largest = (
        x.float().nan_to_num(0.0, posinf=math.inf, neginf=-math.inf).abs().amax(-1, keepdim=True)
    )
    return (largest.clamp(max=bound) / SCALED[fp8]).clamp(min=1 / (512 * SCALED[fp8]))


@pytest.mark.parametrize("bound", [None, 11.0])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[-1]], ids=str)
def test_per_token(
    ops: Any, fp8: torch.dtype, dtype: torch.dtype, shape: tuple[int, ...], bound: float | None
) -> None:
    x = (torch.randn(shape) * 20).to(dtype)
    out, scale = torch.empty(shape, dtype=fp8), torch.full((*shape[:-1], 1), math.nan)
    ops.dynamic_per_token_scaled_fp8_quant(
        out, x, scale, None if bound is None else torch.tensor([bound])
    )
    want = per_token_scale(x, fp8, bound or math.inf)
    assert torch.equal(scale, want)
    assert_codes(out, (x.float() / want).double(), fp8)


def test_quotients_are_correctly_rounded(ops: Any) -> None:
    """Scales and numbers of all mantissas; every quotient has the exact one's code, even ties."""
    x = torch.randn(4000, 64) * torch.logspace(-6, 30, 4000)[:, None]
    out, scale = torch.empty(x.shape, dtype=E4M3), torch.empty(4000)
    ops.dynamic_per_token_scaled_fp8_quant(out, x, scale, None)
    assert_codes(out, (x / scale[:, None]).double(), E4M3)


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
    fp8: torch.dtype,
    dtype: torch.dtype,
    leading: list[int],
    width: int,
    pads: tuple[int, int],
    data: Any,
) -> None:
    x = strided((*leading, width), dtype, pad=pads[0], order=data.draw(orders(leading)))
    out = strided((*leading, width), fp8, pad=pads[1], order=data.draw(orders(leading)))
    memory = out._base if out._base is not None else out
    before = memory.view(torch.uint8).clone()
    ops.static_scaled_fp8_quant(out, x, torch.tensor(0.25))
    assert_codes(out, x.double() * 4, fp8)
    scale = torch.empty(1)
    ops.dynamic_scaled_fp8_quant(out, x, scale)
    assert_codes(out, divided(x, scale), fp8)
    scales = torch.empty(*leading)
    ops.dynamic_per_token_scaled_fp8_quant(out, x, scales, None)
    assert torch.equal(scales[..., None], per_token_scale(x, fp8))
    assert_codes(out, (x.float() / scales[..., None]).double(), fp8)
    out.view(torch.uint8).zero_()
    before.as_strided(out.shape, out.stride(), out.storage_offset()).zero_()
    assert torch.equal(memory.view(torch.uint8), before)


def test_nan_is_left_out_of_the_scale(ops: Any, fp8: torch.dtype, dtype: torch.dtype) -> None:
    x = torch.randn(3, 70).to(dtype)
    x[1, [0, 33, 69]] = math.nan
    out, scale, scales = torch.empty(3, 70, dtype=fp8), torch.empty(1), torch.empty(3)
    ops.dynamic_scaled_fp8_quant(out, x, scale)
    assert torch.equal(scale[0], x.float().nan_to_num(0.0).abs().max() / SCALED[fp8])
    assert_codes(out, divided(x, scale), fp8)
    ops.dynamic_per_token_scaled_fp8_quant(out, x, scales, None)
    assert torch.equal(scales[:, None], per_token_scale(x, fp8))
    assert_codes(out, (x.float() / scales[:, None]).double(), fp8)


def test_zeros_and_the_least_scale(ops: Any, fp8: torch.dtype, dtype: torch.dtype) -> None:
    x = torch.zeros(2, 37, dtype=dtype)
    out, scale, scales = torch.empty(2, 37, dtype=fp8), torch.empty(1), torch.empty(2)
    ops.dynamic_scaled_fp8_quant(out, x, scale)
    assert scale.item() == 0
    assert not out.view(torch.uint8).any()
    ops.dynamic_per_token_scaled_fp8_quant(out, x, scales, None)
    assert torch.equal(scales, torch.full((2,), 1 / (512 * SCALED[fp8])))
    assert not out.view(torch.uint8).any()


def test_threads_change_no_bit(ops: Any, dtype: torch.dtype) -> None:
    x = torch.randn(61, 1031).to(dtype)
    many, one = (torch.empty(x.shape, dtype=E4M3) for _ in range(2))
    scale, again = torch.empty(1), torch.empty(1)
    ops.dynamic_scaled_fp8_quant(many, x, scale)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ops.dynamic_scaled_fp8_quant(one, x, again)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(scale, again)
    assert torch.equal(many.view(torch.uint8), one.view(torch.uint8))


def test_codes_of_e4m3(ops: Any, dtype: torch.dtype) -> None:
    """NaN, zeros, a tie, and saturation; float8_e4m3fnuz has one NaN and no negative zero."""
    x = torch.tensor([[math.nan, -math.nan, -0.0, 0.0, -1e-9, 232.0, 240.0, 1e4, -math.inf]])
    got = static(ops, x.to(dtype), E4M3).view(torch.uint8)[0].tolist()
    if FNUZ:
        assert got == [0x80, 0x80, 0, 0, 0, 0x7E, 0x7F, 0x7F, 0xFF]
    else:
        assert [code & 0x7F for code in got[:2]] == [0x7F, 0x7F]
        assert got[2:] == [0x80, 0, 0x80, 0x76, 0x77, 0x7E, 0xFE]


def test_scales_leave_out_240(ops: Any, dtype: torch.dtype) -> None:
    """The largest magnitude becomes 224 in float8_e4m3fnuz and 448 in float8_e4m3fn."""
    x = torch.tensor([[1.0, -7.0, 0.5]], dtype=dtype)
    one, out, scale = 32.0 if FNUZ else 64.0, torch.zeros(x.shape, dtype=E4M3), torch.empty(1)
    ops.dynamic_scaled_fp8_quant(out, x, scale)
    assert scale.item() == 1 / one
    assert out.float().tolist() == [[one, -7 * one, one / 2]]
    ops.dynamic_per_token_scaled_fp8_quant(out, 2 * x, scale, None)
    assert scale.item() == 2 / one
    assert out.float().tolist() == [[one, -7 * one, one / 2]]
