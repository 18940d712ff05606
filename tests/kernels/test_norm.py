# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from row_cases import LEADING, PADS, orders

if TYPE_CHECKING:
    from collections.abc import Callable

    from row_cases import Check, Strided


SHAPES = [(1, 1), (1, 7), (3, 16), (5, 64), (83, 769), (7, 5125), (2, 4096), (0, 64), (2, 3, 33)]


def reference(x: torch.Tensor, weight: torch.Tensor | None, epsilon: float) -> torch.Tensor:
    x = x.double()
    result = x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt()
    return result if weight is None else result * weight.double()


@pytest.fixture(params=[True, False], ids=["weight", "no-weight"], scope="session")
def make_weight(
    request: pytest.FixtureRequest,
) -> Callable[[int, torch.dtype], torch.Tensor | None]:
    return lambda width, dtype: torch.randn(width).to(dtype) if request.param else None


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rms_norm(
    ops: Any, check: Check, dtype: torch.dtype, make_weight: Any, shape: tuple[int, ...]
) -> None:
    x, weight = torch.randn(shape).to(dtype), make_weight(shape[-1], dtype)
    out = torch.full(shape, math.nan, dtype=dtype)
    ops.rms_norm(out, x, weight, 1e-6)
    check(out, reference(x, weight, 1e-6))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fused_add_rms_norm(
    ops: Any, check: Check, dtype: torch.dtype, make_weight: Any, shape: tuple[int, ...]
) -> None:
    x, residual, weight = (
        torch.randn(shape).to(dtype),
        torch.randn(shape).to(dtype),
        make_weight(shape[-1], dtype),
    )
    total = x + residual  # torch rounds the sum once, ties to even
    alone = torch.empty_like(x)
    ops.rms_norm(alone, total, weight, 1e-5)
    ops.fused_add_rms_norm(x, residual, weight, 1e-5)
    assert torch.equal(residual, total)
    assert torch.equal(x, alone)
    check(x, reference(total, weight, 1e-5))


@given(
    leading=LEADING,
    width=st.integers(1, 150),
    pads=PADS,
    data=st.data(),
)
def test_strided(
    ops: Any,
    check: Check,
    *,
    strided: Strided,
    dtype: torch.dtype,
    make_weight: Any,
    leading: list[int],
    width: int,
    pads: tuple[int, int],
    data: Any,
) -> None:
    x = strided((*leading, width), dtype, pad=pads[0], order=data.draw(orders(leading)))
    other = strided((*leading, width), dtype, pad=pads[1], order=data.draw(orders(leading)))
    weight = make_weight(width, dtype)
    total = x + other
    out = strided((*leading, width), dtype, pad=pads[1], order=data.draw(orders(leading)))
    ops.rms_norm(out, x, weight, 1e-6)
    check(out, reference(x, weight, 1e-6))
    ops.fused_add_rms_norm(x, other, weight, 1e-6)
    assert torch.equal(other, total)
    check(x, reference(total, weight, 1e-6))


def test_query_and_key_inside_qkv(ops: Any, check: Check, dtype: torch.dtype) -> None:
    """Heads are normalised in place, through a three-dimensional view of a wider tensor."""
    qkv = torch.randn(9, 6 * 72).to(dtype)
    before = qkv.clone()
    heads = qkv[:, 72 : 4 * 72].view(9, 3, 72)
    weight = torch.randn(72).to(dtype)
    want = reference(heads, weight, 1e-6)
    ops.rms_norm(heads, heads, weight, 1e-6)
    check(heads, want)
    assert torch.equal(qkv[:, :72], before[:, :72])
    assert torch.equal(qkv[:, 4 * 72 :], before[:, 4 * 72 :])


def test_rounding_is_to_nearest_even(ops: Any, dtype: torch.dtype) -> None:
    """Sums halfway between two numbers of the dtype, and next to halfway, in both directions."""
    if dtype == torch.float32:
        base, steps = (
            torch.arange(1 << 23, (1 << 23) + 64, dtype=torch.float32),
            torch.tensor([0.25, 0.5, 0.75, 1.5]),
        )
    else:
        size = 128 if dtype == torch.bfloat16 else 1024
        base, steps = (
            torch.arange(size, size + 64, dtype=torch.float32),
            torch.tensor([0.25, 0.5, 0.75, 1.5]),
        )
    base, steps = (t.flatten() for t in torch.meshgrid(base, steps, indexing="ij"))
    for sign in (1, -1):
        x, residual = (sign * base)[None].to(dtype), (sign * steps)[None].to(dtype)
        want = (x.double() + residual.double()).to(dtype)
        ops.fused_add_rms_norm(x, residual, None, 1e-6)
        assert torch.equal(residual, want)


def test_zeros_and_epsilon(ops: Any, check: Check, dtype: torch.dtype) -> None:
    x = torch.zeros(2, 33, dtype=dtype)
    out = torch.full_like(x, math.nan)
    ops.rms_norm(out, x, None, 1e-6)
    assert torch.equal(out, x)
    x.fill_(0.5)
    ops.rms_norm(out, x, None, 2.0)
    check(out, reference(x, None, 2.0))


def test_not_a_number_stays_in_its_row(ops: Any, dtype: torch.dtype) -> None:
    x = torch.ones(3, 50, dtype=dtype)
    x[1, 7] = math.nan
    out = torch.empty_like(x)
    ops.rms_norm(out, x, None, 1e-6)
    assert out[1].isnan().all()
    assert out[[0, 2]].isfinite().all()


def test_results_too_large_for_caches(ops: Any, check: Check, dtype: torch.dtype) -> None:
    """Large results bypass the caches; only some rows are aligned, and each has a tail."""
    rows = (16 << 20) // (4096 * dtype.itemsize)
    x, weight = torch.randn(rows, 4100).to(dtype), torch.randn(4100).to(dtype)
    out, small = torch.full_like(x, math.nan), torch.empty(7, 4100, dtype=dtype)
    ops.rms_norm(out, x, weight, 1e-6)
    check(out, reference(x, weight, 1e-6))
    ops.rms_norm(small, x[:7], weight, 1e-6)
    assert torch.equal(out[:7], small)


def test_threads_change_no_bit(ops: Any, dtype: torch.dtype) -> None:
    x = torch.randn(61, 1031).to(dtype)
    many, one = torch.empty_like(x), torch.empty_like(x)
    ops.rms_norm(many, x, None, 1e-6)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ops.rms_norm(one, x, None, 1e-6)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(many, one)


BAD: dict[str, tuple[Callable[..., Any], str]] = {
    "shapes differ": (
        lambda x: (x[:, :4], x, None),
        r"has shape \[3, 4\], expected \[3, 8\]|has shape \[3, 8\], expected \[3, 4\]",
    ),
    "weight too short": (
        lambda x: (x.clone(), x, torch.ones(7)),
        r"weight has shape \[7\], expected \[8\]: the last dimension of input",
    ),
    "weight of two dimensions": (
        lambda x: (x.clone(), x, torch.ones(1, 8)),
        r"weight has shape \[1, 8\], expected \[8\]",
    ),
    "weight of other dtype": (
        lambda x: (x.clone(), x, torch.ones(8).half()),
        "weight is of dtype Half, expected Float, the dtype of input",
    ),
    "weight strided": (
        lambda x: (x.clone(), x, torch.ones(16)[::2]),
        r"weight has strides \[2\], expected stride 1",
    ),
    "integers": (
        lambda x: (x.int(), x.int(), None),
        "input is of dtype Int, expected Float, BFloat16 or Half",
    ),
    "columns": (
        lambda _: (torch.ones(8, 3).t(), torch.ones(8, 3).t(), None),
        r"has strides \[1, 3\], expected stride 1",
    ),
    "over itself": (
        lambda x: (x[:1].expand(3, 8), x[:1].expand(3, 8), None),
        r"has strides \[0, 1\], expected separate memory",
    ),
}


@pytest.mark.parametrize("name", ["rms_norm", "fused_add_rms_norm"])
@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(ops: Any, name: str, case: str) -> None:
    make, message = BAD[case]
    with pytest.raises(RuntimeError, match=f"^{name}: .*({message})"):
        getattr(ops, name)(*make(torch.ones(3, 8)), 1e-6)
