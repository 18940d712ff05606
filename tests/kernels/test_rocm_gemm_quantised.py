# SPDX-License-Identifier: Apache-2.0
"""Products of a few rows with quantised weights, against float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from vllm._kernels import loader, ops

if TYPE_CHECKING:
    from collections.abc import Callable

HALVES = [torch.bfloat16, torch.float16]
FLOAT8 = [torch.float8_e4m3fn, torch.float8_e4m3fnuz]


@pytest.fixture(autouse=True)
def _loaded() -> None:
    loader.load("_rocm_C")


def matrix(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """Normally distributed numbers."""
    return torch.randn(rows, columns).to(dtype)


def int4_operands(
    m: int, k: int, group: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Elements ``[m, k]``, the same packed in int32, scales and zero points."""
    q = torch.randint(0, 16, (m, k))
    words = torch.zeros(m, k // 8, dtype=torch.int64)
    for i in range(8):
        words |= q[:, i::8] << (i // 2 * 4 + i % 2 * 16)
    scale = (torch.rand(m, k // group) * 0.02 + 0.01).to(dtype)
    zero = torch.randint(0, 16, (m, k // group))
    # Above 2^31, the same bits are a negative number.
    return q, (words - (words >> 31 << 32)).int(), scale, zero


def pack_zeros(zero: torch.Tensor) -> torch.Tensor:
    """Eight rows in a word, the first in the lowest bits; bits of missing rows are set."""
    rows, groups = zero.shape
    whole = torch.full(((rows + 7) // 8 * 8, groups), 15)
    whole[:rows] = zero
    words = torch.zeros(len(whole) // 8, groups, dtype=torch.int64)
    for i in range(8):
        words |= whole[i::8] << (4 * i)
    return (words - (words >> 31 << 32)).int()


def dequantise(q: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    """The weight in float64."""
    each = q.shape[1] // scale.shape[1]
    return (q - zero.double().repeat_interleave(each, 1)) * scale.double().repeat_interleave(
        each, 1
    )


@pytest.mark.parametrize("code", FLOAT8, ids=str)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("n", range(1, 17))
def test_float8_every_number_of_rows(
    check_sums: Callable[..., None], code: torch.dtype, dtype: torch.dtype, n: int
) -> None:
    a, b = matrix(9, 528, code), matrix(n, 528, code)
    scale_a, scale_b = torch.tensor([0.75]), torch.tensor(0.3)
    bias = torch.randn(9).to(dtype)
    got = ops.wvSplitKQ(a, b, dtype, scale_a, scale_b, 1, bias)
    assert got.dtype == dtype
    check_sums(got, a, b, bias, factor=float(scale_a * scale_b))


@pytest.mark.parametrize("code", FLOAT8, ids=str)
@pytest.mark.parametrize("m", [1, 6, 33])
@pytest.mark.parametrize("k", [0, 1, 15, 16, 100, 1024, 4128, 4131])
@pytest.mark.parametrize("units", [1, 60])
def test_float8_sizes(
    check_sums: Callable[..., None], code: torch.dtype, m: int, k: int, units: int
) -> None:
    a, b = matrix(m, k, code), matrix(3, k, code)
    bias = torch.randn(3, m).bfloat16()
    got = ops.wvSplitKQ(a, b, torch.bfloat16, torch.ones(1), torch.ones(1), units, bias)
    check_sums(got, a, b, bias)


@pytest.mark.parametrize("code", FLOAT8, ids=str)
@pytest.mark.parametrize("k", [256, 255])
def test_float8_every_code(code: torch.dtype, k: int) -> None:
    """Each row of the weight has one element that is not zero: each code, in every place."""
    a = torch.zeros(256, k, dtype=torch.uint8)
    each = torch.arange(256)
    for shift in (0, 1, 2, 3):
        a.zero_()
        places = (each + shift) % k
        a[each, places] = each.to(torch.uint8)
        b = torch.ones(1, k).to(code)
        got = ops.wvSplitKQ(a.view(code), b, torch.float16, torch.ones(1), torch.ones(1), 1)[0]
        want = each.to(torch.uint8).view(code).half()
        torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
        # The same codes among the activations.
        ones = torch.ones(3, k).to(code)
        for first in range(0, 256, 16):
            rows = a[first : first + 16].view(code)
            got = ops.wvSplitKQ(ones, rows, torch.float16, torch.ones(1), torch.ones(1), 1)
            each_row = want[first : first + 16, None].expand(-1, 3)
            torch.testing.assert_close(got, each_row, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("code", FLOAT8, ids=str)
def test_float8_into_a_part_of_a_tensor(check_sums: Callable[..., None], code: torch.dtype) -> None:
    a, b = matrix(10, 64, code), matrix(4, 64, code)
    room = torch.full((4, 15), 7.0, dtype=torch.float16)
    one = torch.ones(1)
    torch.ops._rocm_C.wvSplitKQ(a, b, None, room[:, 2:12], one, one, 4)
    check_sums(room[:, 2:12], a, b)
    assert (room[:, :2] == 7).all()
    assert (room[:, 12:] == 7).all()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("zeros", ["none", "packed", "floating"])
@pytest.mark.parametrize("n", range(1, 17))
def test_int4_every_number_of_rows(
    check_sums: Callable[..., None], dtype: torch.dtype, zeros: str, n: int
) -> None:
    q, packed, scale, zero = int4_operands(9, 288, 32, dtype)
    b, bias = matrix(n, 288, dtype), torch.randn(9).to(dtype)
    given = {"none": None, "packed": pack_zeros(zero), "floating": zero.to(dtype)}[zeros]
    got = ops.wvSplitK_int4_g(packed, b, scale, 1, 32, given, bias)
    weight = dequantise(q, scale, torch.full_like(zero, 8) if zeros == "none" else zero)
    check_sums(got, weight, b, bias, terms=144.0)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("group", [32, 64, 128, -1])
@pytest.mark.parametrize(("m", "k"), [(1, 128), (8, 256), (33, 1280), (6, 4224)])
@pytest.mark.parametrize("units", [1, 70])
def test_int4_groups(
    check_sums: Callable[..., None],
    dtype: torch.dtype,
    group: int,
    m: int,
    k: int,
    units: int,
    *,
    zeros: bool,
) -> None:
    q, packed, scale, zero = int4_operands(m, k, k if group == -1 else group, dtype)
    b = matrix(3, k, dtype)
    got = ops.wvSplitK_int4_g(packed, b, scale, units, group, pack_zeros(zero) if zeros else None)
    weight = dequantise(q, scale, zero if zeros else torch.full_like(zero, 8))
    check_sums(got, weight, b, terms=144.0)


@pytest.mark.parametrize("k", [16, 48, 272])
def test_int4_rows_of_one_group(check_sums: Callable[..., None], k: int) -> None:
    q, packed, scale, zero = int4_operands(7, k, k, torch.float16)
    b = matrix(2, k, torch.float16)
    got = ops.wvSplitK_int4_g(packed, b, scale, 1, -1, pack_zeros(zero))
    check_sums(got, dequantise(q, scale, zero), b, terms=144.0)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_int4_layouts(check_sums: Callable[..., None], dtype: torch.dtype) -> None:
    """Words or bytes, rows that lie apart, and activations that do not begin at a whole pack."""
    q, packed, scale, zero = int4_operands(10, 192, 64, dtype)
    b = matrix(5, 193, dtype)[:, 1:]
    want = ops.wvSplitK_int4_g(packed, b.contiguous(), scale, 2, 64, pack_zeros(zero))
    check_sums(want, dequantise(q, scale, zero), b, terms=144.0)
    apart = torch.cat((packed, packed[:, :1]), 1)[:, :-1]
    scales = torch.cat((scale, scale), 1)[:, :3]
    zeros = torch.cat((pack_zeros(zero), pack_zeros(zero)), 1)[:, :3]
    for weight in (packed, packed.view(torch.int8), packed.view(torch.uint8), apart):
        got = ops.wvSplitK_int4_g(weight, b, scales, 2, 64, zeros)
        assert torch.equal(got, want)
    words = packed.view(torch.uint32)
    assert torch.equal(
        ops.wvSplitK_int4_g(words, b, scale, 2, 64, pack_zeros(zero).view(torch.uint32)),
        want,
    )


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_int4_zero_points_between_integers(
    check_sums: Callable[..., None], dtype: torch.dtype
) -> None:
    q, packed, scale, zero = int4_operands(6, 128, 32, dtype)
    zero = zero + torch.randint(-2, 3, zero.shape) / 4
    b = matrix(4, 128, dtype)
    got = ops.wvSplitK_int4_g(packed, b, scale, 1, 32, zero.to(dtype))
    check_sums(got, dequantise(q, scale, zero), b, terms=144.0)
