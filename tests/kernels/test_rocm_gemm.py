# SPDX-License-Identifier: Apache-2.0
"""Products of a few rows of 16-bit numbers, against float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from vllm._kernels import loader, ops

if TYPE_CHECKING:
    from collections.abc import Callable

HALVES = [torch.bfloat16, torch.float16]
#: Products of 16-bit matrices, and the rows that they take.
PRODUCTS: dict[str, tuple[Any, int]] = {
    "wvSplitK": (ops.wvSplitK, 16),
    "wvSplitKrc": (ops.wvSplitKrc, 128),
}


def matrix(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """Normally distributed numbers."""
    return torch.randn(rows, columns).to(dtype)


@pytest.fixture(autouse=True)
def _loaded() -> None:
    loader.load("_rocm_C")


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("n", range(1, 17))
def test_every_number_of_rows(
    check_sums: Callable[..., None], name: str, dtype: torch.dtype, n: int
) -> None:
    a, b = matrix(9, 264, dtype), matrix(n, 264, dtype)
    check_sums(PRODUCTS[name][0](a, b, 1), a, b)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("n", [17, 32, 100, 128])
def test_more_rows_in_parts(check_sums: Callable[..., None], dtype: torch.dtype, n: int) -> None:
    a, b = matrix(5, 520, dtype), matrix(n, 520, dtype)
    check_sums(ops.wvSplitKrc(a, b, 2), a, b)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 31, 33, 67])
@pytest.mark.parametrize("k", [0, 1, 7, 8, 9, 255, 256, 263, 2048, 2056, 4100])
def test_sizes(
    check_sums: Callable[..., None], name: str, dtype: torch.dtype, m: int, k: int
) -> None:
    a, b = matrix(m, k, dtype), matrix(3, k, dtype)
    check_sums(PRODUCTS[name][0](a, b, 1), a, b)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("units", [1, 2, 7, 104, 304])
@pytest.mark.parametrize("k", [300, 2048, 8000])
def test_compute_units(check_sums: Callable[..., None], name: str, units: int, k: int) -> None:
    """Slices and parts of every number: what is divided is the same sum."""
    a, b = matrix(40, k, torch.float16), matrix(2, k, torch.float16)
    bias = matrix(2, 40, torch.float16)
    check_sums(PRODUCTS[name][0](a, b, units, bias), a, b, bias)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(
    "shape", [(37,), (1,), (), (1, 37), (5, 37), (5, 1), (1, 1), (0,)], ids=str
)
@pytest.mark.parametrize("units", [1, 80])
def test_bias(
    check_sums: Callable[..., None],
    name: str,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    units: int,
) -> None:
    a, b = matrix(37, 1030, dtype), matrix(5, 1030, dtype)
    bias = torch.randn(shape).to(dtype)
    got = PRODUCTS[name][0](a, b, units, bias)
    check_sums(got, a, b, bias if bias.numel() else None)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("pad", [1, 8])
def test_strides(
    check_sums: Callable[..., None],
    name: str,
    dtype: torch.dtype,
    pad: int,
    strided: Callable[..., torch.Tensor],
) -> None:
    a, b = strided((10, 272), dtype, pad=pad), strided((6, 272), dtype, pad=2 * pad)
    bias = strided((6, 10), dtype, pad=3)
    got = PRODUCTS[name][0](a, b, 4, bias)
    check_sums(got, a, b, bias)
    # The order of a sum does not depend on where elements lie.
    assert torch.equal(got, PRODUCTS[name][0](a.contiguous(), b.contiguous(), 4, bias))
    transposed = matrix(10, 6, dtype).t()
    check_sums(PRODUCTS[name][0](a, b, 4, transposed), a, b, transposed)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_row_is_the_same_alone(name: str, dtype: torch.dtype) -> None:
    product, most = PRODUCTS[name]
    a, b = matrix(21, 2000, dtype), matrix(most, 2000, dtype)
    whole = product(a, b, 60)
    assert torch.equal(whole, product(a, b, 60))
    for n in (0, 1, 3, 8, most - 1):
        assert torch.equal(whole[n], product(a, b[n : n + 1], 60)[0])
        assert torch.equal(whole[: n + 1], product(a, b[: n + 1], 60))


@pytest.mark.parametrize("name", PRODUCTS)
def test_one_rounding(name: str) -> None:
    """The bias is added before the result is rounded; float16 would have lost what is left."""
    a = torch.full((4, 4096), 0.5, dtype=torch.float16)
    b = torch.ones(1, 4096, dtype=torch.float16)
    b[:, 1::2] = 1 + 2.0**-10
    bias = torch.full((4,), -2048.0, dtype=torch.float16)
    for units in (1, 64):
        assert PRODUCTS[name][0](a, b, units, bias).tolist() == [[1.0] * 4]


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_not_finite(name: str, dtype: torch.dtype) -> None:
    """What is not finite stays in its row and column."""
    a, b = matrix(9, 700, dtype), matrix(3, 700, dtype)
    want = PRODUCTS[name][0](a, b, 8)
    a[4, 699], b[1, 300] = float("nan"), float("inf")
    got = PRODUCTS[name][0](a, b, 8)
    assert got[:, 4].isnan().all()
    assert not got[1].isfinite().any()
    rest = torch.tensor([0, 1, 2, 3, 5, 6, 7, 8])
    assert torch.equal(got[::2, rest], want[::2, rest])


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize(("m", "n", "k"), [(0, 3, 16), (5, 0, 16), (5, 3, 0), (0, 0, 0)])
def test_nothing_to_do(name: str, m: int, n: int, k: int) -> None:
    a, b = matrix(m, k, torch.float16), matrix(n, k, torch.float16)
    got = PRODUCTS[name][0](a, b, 3, torch.ones(m, dtype=torch.float16))
    assert torch.equal(got, torch.ones(n, m, dtype=torch.float16))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("rows_per_block", [1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize(("m", "k"), [(16, 8), (7, 33), (64, 2048), (5, 9000)])
def test_one_row(
    check_sums: Callable[..., None], dtype: torch.dtype, rows_per_block: int, m: int, k: int
) -> None:
    a, b = matrix(m, k, dtype), matrix(1, k, dtype)
    got = ops.LLMM1(a, b, rows_per_block)
    assert got.shape == (1, m)
    check_sums(got, a, b)


def test_fakes() -> None:
    """Shapes and dtypes of what the ops return, without computing it."""
    ops = torch.ops._rocm_C
    a, b = torch.empty(7, 64).half().to("meta"), torch.empty(3, 64).half().to("meta")
    for got in (
        ops.wvSplitK(a, b, None, 1),
        ops.wvSplitKrc(a, b, None, 1),
        ops.wvSplitK_int4_g(a[:, :8].int(), b, a[:, :2], None, None, 1, 32),
    ):
        assert (got.shape, got.dtype, got.device.type) == ((3, 7), torch.float16, "meta")
    assert ops.LLMM1(a, b[:1], 4).shape == (1, 7)
