# SPDX-License-Identifier: Apache-2.0
"""Normalisation with a scale for each group, an op of GPUs only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import float8
import pytest
import torch
from float8 import E4M3

if TYPE_CHECKING:
    from row_cases import Strided


#: Tokens, columns, elements of a group: groups of lanes, of whole warps, larger ones, and ones that
#: no vector fits.
SIZES = [
    (1, 128, 128),
    (3, 256, 64),
    (83, 512, 128),
    (5, 30, 3),
    (4, 77, 77),
    (2, 96, 24),
    (0, 128, 64),
    (2, 8192, 128),
    (1, 20480, 512),
]
LARGEST = {**float8.LARGEST, torch.int8: 127.0}
SCALED = {**float8.SCALED, torch.int8: 127.0}


@pytest.fixture(scope="session")
def op(ops: Any) -> Any:
    return ops.rms_norm_per_block_quant


def quantized(values: torch.Tensor, to: torch.dtype) -> torch.Tensor:
    if to == torch.int8:
        return values.round().clamp(-128, 127)
    return values.clamp(-LARGEST[to], LARGEST[to]).float().to(to).double()


def check(
    out: torch.Tensor,
    scale: torch.Tensor,
    total: torch.Tensor,
    weight: torch.Tensor,
    size: int,
    bound: float | None = None,
) -> None:
    """Every code is the rounding of a value within float32 arithmetic's error of the exact one."""
    x = total.double()
    want = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight.double()
    least = 2**-23 if out.dtype == torch.int8 else 1 / (512 * SCALED[out.dtype])
    largest = want.unflatten(-1, (-1, size)).abs().amax(-1)
    want_scale = (largest.clamp(max=bound or math.inf) / SCALED[out.dtype]).clamp(min=least)
    torch.testing.assert_close(scale.double(), want_scale, rtol=1e-5, atol=0)
    quotient = want / scale.double().repeat_interleave(size, -1)
    one, other = (
        quantized(quotient * (1 - 1e-5), out.dtype),
        quantized(quotient * (1 + 1e-5), out.dtype),
    )
    assert (out.double() >= one.minimum(other)).all()
    assert (out.double() <= one.maximum(other)).all()


@pytest.mark.parametrize("to", LARGEST, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_groups(op: Any, dtype: torch.dtype, to: torch.dtype, sizes: tuple[int, int, int]) -> None:
    tokens, columns, size = sizes
    x, residual, weight = (
        (torch.randn(shape) * 3).to(dtype)
        for shape in ((tokens, columns), (tokens, columns), (columns,))
    )
    out, scale = torch.empty(x.shape, dtype=to), torch.full((tokens, columns // size), math.nan)
    op(out, x, weight, scale, 1e-6, None, None, size, False)
    check(out, scale, x, weight, size)
    total, kept = x + residual, x.clone()
    op(out, x, weight, scale, 1e-6, None, residual, size, False)
    assert torch.equal(residual, total)
    assert torch.equal(x, kept)
    check(out, scale, total, weight, size)
    if to != torch.int8:
        op(out, x, weight, scale, 1e-6, torch.tensor([0.8]), None, size, False)
        check(out, scale, x, weight, size, 0.8)


@pytest.mark.parametrize("size", [16, 64, 192])
def test_scales_in_columns_and_strides(
    op: Any, strided: Strided, dtype: torch.dtype, size: int
) -> None:
    """Column-major scales with padding, as matrix products need them; nothing else is written."""
    x, weight = strided((5, 192), dtype, pad=6), torch.randn(192).to(dtype)
    out = strided((5, 192), torch.int8, pad=3)
    memory = torch.full((192 // size, 8), math.nan)
    op(out, x, weight, memory.t()[:5], 1e-6, None, None, size, True)
    check(out, memory.t()[:5], x, weight, size)
    assert memory[:, 5:].isnan().all()


def test_zeros_have_the_least_scale(op: Any, dtype: torch.dtype) -> None:
    x, weight = torch.zeros(2, 128, dtype=dtype), torch.ones(128, dtype=dtype)
    out, scale = torch.empty(2, 128, dtype=E4M3), torch.empty(2, 2)
    op(out, x, weight, scale, 1e-6, None, None, 64, False)
    assert torch.equal(scale, torch.full((2, 2), 1 / (512 * SCALED[E4M3])))
    assert not out.view(torch.uint8).any()


BAD = {
    "size that does not divide": (
        {"group_size": 5},
        r"input has shape \[4, 32\] and group_size is 5, expected a group_size that divides",
    ),
    "size of zero": ({"group_size": 0}, r"input has shape \[4, 32\] and group_size is 0"),
    "scales too few": ({"scale": torch.ones(4, 1)}, r"scale has shape \[4, 1\], expected \[4, 2\]"),
    "scales of half": (
        {"scale": torch.ones(4, 2).half()},
        "scale is of dtype Half, expected Float",
    ),
    "scales over themselves": (
        {"scale": torch.ones(1, 2).expand(4, 2)},
        r"scale has strides \[0, 1\]",
    ),
    "result of floats": (
        {"result": torch.ones(4, 32)},
        f"result is of dtype Float, expected {float8.NAME}, Float8_e5m2 or Char",
    ),
    "result of another device": (
        {"result": torch.empty(4, 32, dtype=float8.FOREIGN)},
        f"result {float8.REFUSED}",
    ),
    "weight too short": ({"weight": torch.ones(31)}, r"weight has shape \[31\], expected \[32\]"),
    "residual of other shape": (
        {"residual": torch.ones(4, 31)},
        r"residual has shape \[4, 31\], expected \[4, 32\]",
    ),
    "bound with int8": (
        {"result": torch.empty(4, 32, dtype=torch.int8), "scale_ub": torch.ones(1)},
        "scale_ub is given with a result of dtype Char",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(op: Any, case: str) -> None:
    changes, message = BAD[case]
    arguments: dict[str, Any] = {
        "result": torch.empty(4, 32, dtype=E4M3),
        "input": torch.ones(4, 32),
        "weight": torch.ones(32),
        "scale": torch.empty(4, 2),
        "epsilon": 1e-6,
        "scale_ub": None,
        "residual": None,
        "group_size": 16,
        "is_scale_transposed": False,
    }
    with pytest.raises(RuntimeError, match=f"^rms_norm_per_block_quant: {message}"):
        op(**(arguments | changes))
