# SPDX-License-Identifier: Apache-2.0
"""Products of int8 matrices with packed weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packed_weights import EPSILON, SHAPES, packed_int8

if TYPE_CHECKING:
    from row_cases import Strided


def int8(*shape: int) -> torch.Tensor:
    """The whole range: 16-bit sums overflow for products of its ends."""
    return torch.randint(-128, 128, shape, dtype=torch.int8)


def check_scaled(
    c: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    a_scale: Any,
    zero: Any,
    b_scale: Any,
    bias: Any,
) -> None:
    def column(v: torch.Tensor) -> torch.Tensor:
        return v.double().view(-1, 1) if a_scale.numel() > 1 else v.double()

    exact = (a.double() - (0 if zero is None else column(zero))) @ b.double()
    want = exact * column(a_scale) * b_scale.double().view(1, -1) + (
        0 if bias is None else bias.double()
    )
    # The exact sum is rounded at most four times to float32 and once to the dtype; the bias may
    # cancel.
    slack = 2**-21 * (exact * column(a_scale) * b_scale.double().view(1, -1)).abs()
    bound = EPSILON[c.dtype] * want.abs() + slack + 1e-30
    if c.dtype == torch.float16:
        bound = bound + 2**-24
    assert bool(((c.double() - want).abs() <= bound).all())


@pytest.mark.parametrize("shape", [*SHAPES, (5, 4100, 40)], ids=str)
@pytest.mark.parametrize("mode", ["static", "static azp", "dynamic", "dynamic azp"])
def test_scaled_product(
    ops: Any, dtype: torch.dtype, shape: tuple[int, int, int], mode: str
) -> None:
    rows, depth, columns = shape
    dynamic, azp = mode.startswith("dynamic"), mode.endswith("azp")
    a, b = int8(rows, depth), int8(depth, columns)
    b_scale = torch.rand(columns) * 1e-3 if rows % 2 else torch.rand(1) * 1e-3
    each = rows if dynamic else 1
    a_scale = torch.rand(each, 1) * 1e-2 + 1e-4
    zero = torch.randint(-300, 300, (each, 1), dtype=torch.int32) if azp else None
    bias = torch.randn(columns).to(dtype) if columns % 2 else None
    adjust = b.float().sum(0, keepdim=True) * b_scale if azp and dynamic else None
    c = torch.full((rows, columns), math.nan, dtype=dtype)
    with packed_int8(ops, b, b_scale, dtype, dynamic=dynamic, azp=azp) as handle:
        ops.onednn_scaled_mm(c, a, a_scale, zero, adjust, bias, handle)
    if rows:
        check_scaled(c, a, b, a_scale, zero, b_scale, bias)


@given(
    rows=st.integers(1, 12),
    depth=st.integers(1, 70),
    columns=st.integers(1, 70),
    pad=st.integers(0, 9),
    data=st.data(),
)
def test_scaled_shapes_and_strides(
    ops: Any,
    strided: Strided,
    dtype: torch.dtype,
    *,
    rows: int,
    depth: int,
    columns: int,
    pad: int,
    data: Any,
) -> None:
    a = int8(rows, depth + pad)[:, pad:]
    b = int8(columns, depth).t() if data.draw(st.booleans()) else int8(depth, columns)
    c = strided((rows, columns), dtype, pad=pad)
    a_scale, b_scale, bias = (
        torch.rand(rows) * 1e-2,
        torch.rand(columns) * 1e-2,
        torch.randn(columns),
    )
    with packed_int8(ops, b, b_scale, dtype, dynamic=True, azp=False) as handle:
        ops.onednn_scaled_mm(c, a, a_scale, None, None, bias, handle)
    check_scaled(c, a, b, a_scale, None, b_scale, bias)


@pytest.mark.parametrize("value", [-128, 127])
def test_the_greatest_products_do_not_saturate(ops: Any, value: int) -> None:
    a, b = (
        torch.full((2, 4096), value, dtype=torch.int8),
        torch.full((4096, 20), value, dtype=torch.int8),
    )
    c = torch.empty(2, 20)
    with packed_int8(ops, b, torch.ones(1), torch.float32, dynamic=False, azp=False) as handle:
        ops.onednn_scaled_mm(c, a, torch.ones(1), None, None, None, handle)
    assert torch.equal(c, torch.full((2, 20), 4096.0 * value * value))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({0: torch.empty(3, 6).half()}, "c has another dtype, expected the output_type"),
        ({0: torch.empty(2, 6)}, r"c has shape \[2, 6\], expected \[3, 6\]"),
        ({1: torch.empty(3, 4)}, "a is of dtype Float, expected Char"),
        ({1: torch.zeros(3, 5, dtype=torch.int8)}, r"a has shape \[3, 5\], expected \[3, 4\]"),
        (
            {2: torch.ones(2)},
            r"a_scales has shape \[2\], expected one element or one for each row of a, 3",
        ),
        ({2: torch.ones(3).double()}, "a_scales is of dtype Double, expected Float"),
        ({3: None}, "azp is missing, but the handler was created with use_azp True"),
        (
            {3: torch.zeros(2, dtype=torch.int32)},
            r"azp has shape \[2\], expected one element or one for each row of a, 3",
        ),
        (
            {4: torch.zeros(5)},
            r"azp_adj has shape \[5\], expected one for each column of the weights, 6",
        ),
        ({5: torch.zeros(5)}, r"bias has shape \[5\], expected \[6\]"),
        ({5: torch.zeros(6).half()}, "bias is of dtype Half, expected Float"),
        (
            {6: torch.tensor(-5)},
            "handler_tensor is -5, expected a number that create_onednn_scaled_mm_handler returned",
        ),
    ],
)
def test_bad_scaled_arguments(ops: Any, changed: dict[int, Any], message: str) -> None:
    with packed_int8(
        ops, int8(4, 6), torch.ones(6), torch.float32, dynamic=True, azp=True
    ) as handle:
        zero = torch.zeros(3, dtype=torch.int32)
        arguments = [torch.empty(3, 6), int8(3, 4), torch.ones(3), zero, None, None, handle]
        for position, value in changed.items():
            arguments[position] = value
        with pytest.raises(RuntimeError, match=f"^onednn_scaled_mm: {message}"):
            ops.onednn_scaled_mm(*arguments)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({0: torch.zeros(4, 6)}, "b is of dtype Float, expected Char"),
        ({0: torch.zeros(6, dtype=torch.int8)}, r"b has shape \[6\], expected \[K, N\]"),
        (
            {0: torch.zeros(131072, 1, dtype=torch.int8).expand(131072, 6)},
            r"b has shape \[131072, 6\], expected K of at most 131071",
        ),
        (
            {1: torch.zeros(5)},
            r"b_scales has shape \[5\], expected one element or one for each column of b, 6",
        ),
        ({2: torch.float64}, "output_type is Double, expected Float, BFloat16 or Half"),
        ({5: -1}, "primitive_cache_size is -1, expected at least 0"),
    ],
)
def test_bad_scaled_weights(ops: Any, changed: dict[int, Any], message: str) -> None:
    arguments = [torch.zeros(4, 6, dtype=torch.int8), torch.ones(6), torch.float32, True, True, 8]
    for position, value in changed.items():
        arguments[position] = value
    with pytest.raises(RuntimeError, match=f"^create_onednn_scaled_mm_handler: {message}"):
        ops.create_onednn_scaled_mm_handler(*arguments)
