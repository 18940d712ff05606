# SPDX-License-Identifier: Apache-2.0
"""How ops that choose elements treat NaN, in every lane.

test_not_a_number.py tests ops that quantise, normalise or convert.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from nan_rows import (
    FLT_MAX,
    WIDTHS,
    rows_of_each_width,  # noqa: F401 - a fixture
)

if TYPE_CHECKING:
    from collections.abc import Callable

    RowsWithNan = Callable[..., torch.Tensor]


@pytest.mark.parametrize("width", [*WIDTHS, 300])
def test_greedy_argmax(
    ops: Any, rows_with_nan: RowsWithNan, dtype: torch.dtype, width: int
) -> None:
    """The first NaN is chosen, as in torch.argmax."""
    x = rows_with_nan(width, dtype)
    assert torch.equal(ops.greedy_argmax(x), x.isnan().int().argmax(-1))
    assert torch.equal(ops.greedy_argmax(x), x.argmax(-1))


@pytest.mark.parametrize("width", [*WIDTHS, 300])
def test_gumbel_argmax(
    ops: Any, rows_with_nan: RowsWithNan, dtype: torch.dtype, width: int
) -> None:
    x = rows_with_nan(width, dtype)
    assert torch.equal(ops.fused_gumbel_argmax(x, torch.arange(len(x))), x.isnan().int().argmax(-1))


#: A score that is not finite counts as 0 and is chosen last. All scores of a softmax over NaN or
#: +infinity are like that.
SCORES = {"topk_softmax": lambda x: x.softmax(-1), "topk_sigmoid": torch.sigmoid}


def route(
    name: str, x: torch.Tensor, topk: int, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    weights, experts = torch.empty(len(x), topk), torch.empty(len(x), topk, dtype=torch.int32)
    scaling = (1.0,) if name == "topk_sigmoid" else ()
    getattr(torch.ops._moe_C, name)(
        weights, experts, torch.empty_like(experts), x, False, bias, *scaling, None
    )
    return weights, experts


def routed(
    scores: torch.Tensor, topk: int, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    sums = scores if bias is None else scores + bias.double()
    choice = torch.where(scores.isfinite() & ~sums.isnan(), sums, -math.inf)
    experts = choice.sort(dim=-1, descending=True, stable=True).indices[:, :topk]
    return torch.where(scores.isfinite(), scores, 0.0).gather(1, experts), experts


@pytest.mark.parametrize("name", SCORES)
def test_topk(x: torch.Tensor, name: str) -> None:
    topk = min(8, x.shape[1])
    weights, experts = route(name, x, topk, None)
    want, want_experts = routed(SCORES[name](x.double()), topk, None)
    assert torch.equal(experts.long(), want_experts)
    torch.testing.assert_close(weights.double(), want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", SCORES)
def test_topk_with_a_bias_of_nan(rows_with_nan: RowsWithNan, dtype: torch.dtype, name: str) -> None:
    """Such an expert is chosen last; its weight is its score."""
    x = torch.arange(67).roll(5).div(16).expand(2, -1).contiguous()
    for bias in rows_with_nan(67, dtype)[::7]:
        if bias.isinf().any():
            continue
        weights, experts = route(name, x, 67, bias)
        want, want_experts = routed(SCORES[name](x.double()), 67, bias)
        assert torch.equal(experts.long(), want_experts)
        torch.testing.assert_close(weights.double(), want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scoring", [0, 1])
@pytest.mark.parametrize("size", [2, 17])
def test_grouped_topk(
    rows_with_nan: RowsWithNan, dtype: torch.dtype, scoring: int, size: int
) -> None:
    """A group's score is the sum of its two best choices.

    Without a finite score, the first experts get equal weights.
    """
    groups, kept, topk = 4, 2, 3
    x = rows_with_nan(groups * size, dtype)
    weights, experts = torch.ops._moe_C.grouped_topk(
        x, groups, kept, topk, False, 1.0, torch.zeros(groups * size), scoring
    )
    scores = x.float().sigmoid() if scoring else x.float()
    finite = scores.isfinite()
    choice = torch.where(finite, scores, -FLT_MAX).unflatten(-1, (groups, size))
    worth = choice.topk(2, -1).values.sum(-1).clamp(min=-FLT_MAX)
    best = worth.sort(dim=-1, descending=True, stable=True).indices[:, :kept]
    outside = torch.ones_like(worth, dtype=torch.bool).scatter(1, best, value=False)
    choice = choice.masked_fill(outside[..., None], -math.inf).flatten(-2)
    want_experts = choice.sort(dim=-1, descending=True, stable=True).indices[:, :topk]
    want = torch.where(finite, scores, 0.0).gather(1, want_experts)
    none = ~finite.any(-1, keepdim=True)
    want_experts, want = (
        torch.where(none, torch.arange(topk), want_experts),
        torch.where(none, 1 / topk, want),
    )
    assert torch.equal(experts.long(), want_experts)
    torch.testing.assert_close(weights, want, rtol=1e-5, atol=1e-7)
