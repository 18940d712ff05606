# SPDX-License-Identifier: Apache-2.0
"""Matrix products with packed weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packed_weights import EPSILON, SHAPES, packed, packed_int8
from row_cases import PADS

if TYPE_CHECKING:
    from row_cases import Strided


def check_product(
    c: torch.Tensor, a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None
) -> None:
    """Compare within one rounding of the result and float32's error of a sum.

    That error is the depth times the last place of the largest partial sum.
    """
    want = a.double() @ b.double() + (0 if bias is None else bias.double())
    size = a.double().abs() @ b.double().abs() + (0 if bias is None else bias.double().abs())
    bound = EPSILON[c.dtype] * want.abs() + 2**-23 * math.sqrt(a.shape[1] + 16) * size + 1e-7
    assert bool(((c.double() - want).abs() <= bound).all()), (
        (c.double() - want).abs() / bound
    ).max()


# A single row of the last shape is longer than the memory for a block of rows.
@pytest.mark.parametrize("shape", [*SHAPES, (2, 1_100_000, 18)], ids=str)
@pytest.mark.parametrize("with_bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("columns_first", [False, True], ids=["rows", "columns"])
def test_product(
    ops: Any,
    dtype: torch.dtype,
    shape: tuple[int, int, int],
    *,
    with_bias: bool,
    columns_first: bool,
) -> None:
    rows, depth, columns = shape
    a = torch.randn(rows, depth).to(dtype)
    b = (torch.randn(columns, depth).t() if columns_first else torch.randn(depth, columns)).to(
        dtype
    )
    bias = torch.randn(columns).to(dtype) if with_bias else None
    c = torch.full((rows, columns), math.nan, dtype=dtype)
    with packed(ops, b) as handle:
        ops.onednn_mm(c, a, bias, handle)
    check_product(c, a, b, bias)


@given(
    rows=st.integers(1, 20),
    depth=st.integers(1, 70),
    columns=st.integers(1, 70),
    pads=PADS,
)
def test_shapes_and_strides(
    ops: Any,
    strided: Strided,
    dtype: torch.dtype,
    *,
    rows: int,
    depth: int,
    columns: int,
    pads: tuple[int, int],
) -> None:
    a = strided((rows, depth), dtype, pad=pads[0])
    b = torch.randn(2 * depth, 3 * columns).to(dtype)[::2, ::3]
    c = strided((rows, columns), dtype, pad=pads[1])
    memory = c._base if c._base is not None else c
    around = memory.clone()
    with packed(ops, b) as handle:
        ops.onednn_mm(c, a, None, handle)
    check_product(c, a, b, None)
    around.as_strided(c.shape, c.stride(), c.storage_offset()).copy_(c)
    assert torch.equal(memory, around)


@pytest.mark.parametrize("leading", [(1, 6), (2, 3), (6, 1), (2, 1, 3)])
def test_the_rows_of_the_output_may_be_several_dimensions(
    ops: Any, dtype: torch.dtype, leading: tuple[int, ...]
) -> None:
    """The engine runs models of transformers with activations of three dimensions."""
    a, b = torch.randn(6, 37).to(dtype), torch.randn(37, 20).to(dtype)
    c = torch.full((*leading, 40), math.nan, dtype=dtype)[..., 10:30]
    with packed(ops, b) as handle:
        ops.onednn_mm(c, a, None, handle)
    check_product(c.reshape(6, 20), a, b, None)


def test_the_weight_is_a_copy(ops: Any) -> None:
    b = torch.randn(8, 8)
    want = b.clone()
    with packed(ops, b) as handle:
        b.zero_()
        c = torch.empty(8, 8)
        ops.onednn_mm(c, torch.eye(8), None, handle)
    assert torch.equal(c, want)


@pytest.mark.parametrize("columns", [500, 70])
def test_threads_change_no_bit(ops: Any, dtype: torch.dtype, columns: int) -> None:
    """Threads divide the columns, or the rows if there are more of them."""
    a, b = torch.randn(130, 600).to(dtype), torch.randn(600, columns).to(dtype)
    many, one = torch.empty(130, columns, dtype=dtype), torch.empty(130, columns, dtype=dtype)
    threads = torch.get_num_threads()
    with packed(ops, b) as handle:
        ops.onednn_mm(many, a, None, handle)
        torch.set_num_threads(1)
        try:
            ops.onednn_mm(one, a, None, handle)
        finally:
            torch.set_num_threads(threads)
    assert torch.equal(many, one)


@pytest.mark.parametrize("rows", [4, 20])
def test_not_a_number_and_infinity_stay_in_their_rows(
    ops: Any, dtype: torch.dtype, rows: int
) -> None:
    """Instructions multiply more rows and a greater depth than the matrices have."""
    a, b = torch.randn(rows, 37).to(dtype), (torch.rand(37, 50) + 0.5).to(dtype)
    a[1, 36], a[3, 0] = math.nan, math.inf
    c = torch.empty(rows, 50, dtype=dtype)
    with packed(ops, b) as handle:
        ops.onednn_mm(c, a, None, handle)
    assert bool(c[1].isnan().all())
    assert bool(c[3].isposinf().all())
    rest = [row for row in range(rows) if row not in {1, 3}]
    check_product(c[rest], a[rest], b, None)


def test_rows_do_not_depend_on_the_rows_around_them(ops: Any, dtype: torch.dtype) -> None:
    """Above a few rows, the order of the sums is that of the depth in every block."""
    a, b = torch.randn(600, 2200).to(dtype), torch.randn(2200, 100).to(dtype)
    all_rows, some = torch.empty(600, 100, dtype=dtype), torch.empty(40, 100, dtype=dtype)
    with packed(ops, b) as handle:
        ops.onednn_mm(all_rows, a, None, handle)
        ops.onednn_mm(some, a[300:340], None, handle)
    assert torch.equal(all_rows[300:340], some)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({0: torch.empty(3, 5)}, r"c has shape \[3, 5\], expected \[3, 6\]"),
        ({0: torch.empty(2, 3, 6)}, r"c has shape \[2, 3, 6\], expected \[3, 6\]"),
        ({0: torch.empty(3, 1, 5)}, r"c has shape \[3, 1, 5\], expected \[3, 6\]"),
        ({0: torch.empty(6)}, r"c has shape \[6\], expected \[3, 6\]"),
        ({0: torch.empty(3, 6).half()}, "c is of dtype Half, expected Float"),
        ({1: torch.empty(3, 5)}, r"a has shape \[3, 5\], expected \[3, 4\]"),
        ({1: torch.empty(4)}, r"a has shape \[4\], expected \[M, K\]"),
        ({1: torch.empty(3, 4).half()}, "a has another dtype, expected the dtype of the weights"),
        ({2: torch.empty(5)}, r"bias has shape \[5\], expected \[6\]"),
        (
            {3: torch.tensor(0)},
            "handler_tensor is 0, expected a number that create_onednn_mm_handler returned",
        ),
        (
            {3: torch.tensor(2**62)},
            (
                "handler_tensor is 4611686018427387904, expected a number that "
                "create_onednn_mm_handler returned"
            ),
        ),
        ({3: torch.tensor(-1)}, "handler_tensor is -1, expected"),
        ({3: torch.tensor([1, 2])}, r"handler_tensor has shape \[2\], expected one number"),
        ({3: torch.tensor(1.0)}, "handler_tensor is of dtype Float, expected Long"),
    ],
)
def test_bad_arguments(ops: Any, changed: dict[int, Any], message: str) -> None:
    with packed(ops, torch.randn(4, 6)) as handle:
        arguments = [torch.empty(3, 6), torch.empty(3, 4), None, handle]
        for position, value in changed.items():
            arguments[position] = value
        with pytest.raises(RuntimeError, match=f"^onednn_mm: {message}"):
            ops.onednn_mm(*arguments)


def test_released_and_foreign_handles(ops: Any) -> None:
    with packed(ops, torch.randn(4, 6)) as handle:
        pass
    with pytest.raises(
        RuntimeError,
        match="expected a number that create_onednn_mm_handler returned and that was not released",
    ):
        ops.onednn_mm(torch.empty(3, 6), torch.empty(3, 4), None, handle)
    with pytest.raises(
        RuntimeError,
        match=r"release_dnnl_matmul_handler: handler is \d+, expected a number that was returned "
        r"and not yet",
    ):
        ops.release_dnnl_matmul_handler(handle.item())
    quantised = packed_int8(
        ops,
        torch.ones(4, 6, dtype=torch.int8),
        torch.ones(1),
        torch.float32,
        dynamic=False,
        azp=False,
    )
    with (
        quantised as handle,
        pytest.raises(
            RuntimeError, match="expected a number that create_onednn_mm_handler returned"
        ),
    ):
        ops.onednn_mm(torch.empty(3, 6), torch.empty(3, 4), None, handle)


@pytest.mark.parametrize(
    "weight",
    [torch.zeros(3), torch.zeros(2, 2).double(), torch.zeros(1, 2, 3)],
    ids=["1d", "double", "3d"],
)
def test_bad_weights(ops: Any, weight: torch.Tensor) -> None:
    with pytest.raises(RuntimeError, match=r"^create_onednn_mm_handler: b (has shape|is of dtype)"):
        ops.create_onednn_mm_handler(weight, 8)
