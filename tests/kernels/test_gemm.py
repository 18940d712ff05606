# SPDX-License-Identifier: Apache-2.0
"""Matrix products with packed weights."""

from __future__ import annotations

import math
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Strided = Callable[..., torch.Tensor]

#: Examples of each property; fewer where test_instruction_sets.py repeats these tests.
EXAMPLES = int(os.environ.get("KERNEL_TEST_EXAMPLES", "50"))
#: Rows, depth, columns: below and beyond registers, panels, blocks of rows, of depth and of
#: columns; nothing at all.
SHAPES = [
    (1, 1, 1),
    (1, 5, 16),
    (2, 17, 33),
    (6, 64, 48),
    (7, 300, 15),
    (1, 5000, 150),
    (2, 70, 100),
    (3, 600, 72),
    (13, 600, 290),
    (97, 33, 65),
    (200, 270, 272),
    (0, 8, 8),
    (3, 0, 8),
    (3, 8, 0),
]
EPSILON = {torch.float32: 2**-23, torch.bfloat16: 2**-8, torch.float16: 2**-10}


@contextmanager
def packed(ops: Any, weight: torch.Tensor) -> Iterator[torch.Tensor]:
    number = ops.create_onednn_mm_handler(weight, 8)
    try:
        yield torch.tensor(number)
    finally:
        ops.release_dnnl_matmul_handler(number)


@contextmanager
def packed_int8(
    ops: Any,
    weight: torch.Tensor,
    scales: torch.Tensor,
    output: torch.dtype,
    *,
    dynamic: bool,
    azp: bool,
) -> Iterator[torch.Tensor]:
    number = ops.create_onednn_scaled_mm_handler(weight, scales, output, dynamic, azp, 8)
    try:
        yield torch.tensor(number)
    finally:
        ops.release_dnnl_matmul_handler(number)


def check_product(
    c: torch.Tensor, a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None
) -> None:
    """Within one rounding of the result, and float32's error of a sum: depth times the greatest partial sum's last place."""
    want = a.double() @ b.double() + (0 if bias is None else bias.double())
    size = a.double().abs() @ b.double().abs() + (0 if bias is None else bias.double().abs())
    bound = EPSILON[c.dtype] * want.abs() + 2**-23 * math.sqrt(a.shape[1] + 16) * size + 1e-7
    assert bool(((c.double() - want).abs() <= bound).all()), (
        (c.double() - want).abs() / bound
    ).max()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
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
    pads=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
@settings(deadline=None, max_examples=EXAMPLES)
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


def test_the_weight_is_a_copy(ops: Any) -> None:
    b = torch.randn(8, 8)
    want = b.clone()
    with packed(ops, b) as handle:
        b.zero_()
        c = torch.empty(8, 8)
        ops.onednn_mm(c, torch.eye(8), None, handle)
    assert torch.equal(c, want)


def test_threads_change_no_bit(ops: Any, dtype: torch.dtype) -> None:
    a, b = torch.randn(130, 600).to(dtype), torch.randn(600, 500).to(dtype)
    many, one = torch.empty(130, 500, dtype=dtype), torch.empty(130, 500, dtype=dtype)
    threads = torch.get_num_threads()
    with packed(ops, b) as handle:
        ops.onednn_mm(many, a, None, handle)
        torch.set_num_threads(1)
        try:
            ops.onednn_mm(one, a, None, handle)
        finally:
            torch.set_num_threads(threads)
    assert torch.equal(many, one)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({0: torch.empty(3, 5)}, r"c has shape \[3, 5\], expected \[3, 6\]"),
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


def int8(*shape: int) -> torch.Tensor:
    """The whole range, ends and all: products of the ends are what 16-bit sums cannot hold."""
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
    column = (lambda v: v.double().view(-1, 1)) if a_scale.numel() > 1 else (lambda v: v.double())
    exact = (a.double() - (0 if zero is None else column(zero))) @ b.double()
    want = exact * column(a_scale) * b_scale.double().view(1, -1) + (
        0 if bias is None else bias.double()
    )
    # After the exact sum come at most four roundings to float32 and one to the dtype; the bias may
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
@settings(deadline=None, max_examples=EXAMPLES)
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
        ({3: None}, "azp is missing, the handler was created with use_azp True"),
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
