# SPDX-License-Identifier: Apache-2.0
"""Merging attention over two sets of keys."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from row_cases import Check


SHAPES = [(1, 1, 1), (3, 2, 8), (5, 3, 33), (7, 4, 128), (300, 2, 80), (0, 2, 16)]


def reference(
    prefix: torch.Tensor, a: torch.Tensor, suffix: torch.Tensor, b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = a.double(), b.double()
    a, b = a.masked_fill(a.isinf(), -math.inf), b.masked_fill(b.isinf(), -math.inf)
    lse = torch.logaddexp(a, b)
    shares = [(side - lse).exp().nan_to_num(0.0).t()[..., None] for side in (a, b)]
    return sum(
        torch.where(s == 0, 0.0, o.double() * s)
        for s, o in zip(shares, (prefix, suffix), strict=True)
    ), lse


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("with_lse", [True, False])
def test_merge(
    ops: Any, check: Check, dtype: torch.dtype, shape: tuple[int, int, int], *, with_lse: bool
) -> None:
    prefix, suffix = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    a, b = 4 * torch.randn(shape[1], shape[0]), 4 * torch.randn(shape[1], shape[0])
    a[torch.rand_like(a) < 0.2] = -math.inf
    b[torch.rand_like(b) < 0.2] = -math.inf
    a[torch.rand_like(a) < 0.1] = math.inf
    # The contents of a side without keys do not matter.
    prefix[a.isinf().t()] = math.nan
    out, lse = (
        torch.full(shape, math.nan, dtype=dtype),
        torch.full_like(a, math.nan) if with_lse else None,
    )
    ops.merge_attn_states(out, lse, prefix, a, suffix, b, None)
    want, want_lse = reference(prefix, a, suffix, b)
    check(out, want)
    if lse is not None:
        torch.testing.assert_close(lse.double(), want_lse, rtol=1e-5, atol=1e-6)


def test_in_place_and_strided(ops: Any, check: Check, dtype: torch.dtype) -> None:
    prefix, suffix = torch.randn(9, 5, 40).to(dtype)[:, 1:4, 3:], torch.randn(9, 3, 37).to(dtype)
    a, b = torch.randn(3, 12)[:, :9], torch.randn(3, 9)
    want, want_lse = reference(prefix, a, suffix, b)
    ops.merge_attn_states(prefix, a, prefix, a, suffix, b, None)
    check(prefix, want)
    torch.testing.assert_close(a.double(), want_lse, rtol=1e-5, atol=1e-6)


def test_tokens_without_a_prefix(ops: Any, check: Check, dtype: torch.dtype) -> None:
    prefix, suffix = torch.randn(6, 2, 16).to(dtype), torch.randn(6, 2, 16).to(dtype)
    a, b = torch.randn(2, 6), torch.randn(2, 6)
    out, lse = torch.empty_like(prefix), torch.empty_like(a)
    ops.merge_attn_states(out, lse, prefix, a, suffix, b, 4)
    want, want_lse = reference(prefix, a, suffix, b)
    check(out[:4], want[:4])
    assert torch.equal(out[4:], suffix[4:])
    torch.testing.assert_close(lse[:, :4].double(), want_lse[:, :4], rtol=1e-5, atol=1e-6)
    assert torch.equal(lse[:, 4:], b[:, 4:])


BAD = {
    "shapes": (
        {"suffix_output": torch.zeros(3, 2, 9)},
        r"suffix_output has shape \[3, 2, 9\], expected \[3, 2, 8\]",
    ),
    "output": ({"output": torch.zeros(3, 2, 8).half()}, "output is of dtype Half, expected Float"),
    "lse turned": (
        {"prefix_lse": torch.zeros(3, 2)},
        r"prefix_lse has shape \[3, 2\], expected \[2, 3\]: \[heads, tokens\]",
    ),
    "lse of half": (
        {"suffix_lse": torch.zeros(2, 3).half()},
        "suffix_lse is of dtype Half, expected Float",
    ),
    "output lse": ({"output_lse": torch.zeros(2, 4)}, r"output_lse has shape \[2, 4\]"),
    "two dimensions": (
        {"prefix_output": torch.zeros(3, 16)},
        r"prefix_output has shape \[3, 16\], expected \[tokens, heads, head_size\]",
    ),
    "too many tokens": ({"prefill_tokens_with_context": 4}, "prefill_tokens_with_context is 4"),
    "negative tokens": ({"prefill_tokens_with_context": -1}, "prefill_tokens_with_context is -1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(ops: Any, name: str) -> None:
    changed, message = BAD[name]
    arguments = {
        "output": torch.zeros(3, 2, 8),
        "output_lse": None,
        "prefix_output": torch.zeros(3, 2, 8),
        "prefix_lse": torch.zeros(2, 3),
        "suffix_output": torch.zeros(3, 2, 8),
        "suffix_lse": torch.zeros(2, 3),
        "prefill_tokens_with_context": None,
    }
    with pytest.raises(RuntimeError, match=f"^merge_attn_states: .*{message}"):
        ops.merge_attn_states(**(arguments | changed))
