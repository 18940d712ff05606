# SPDX-License-Identifier: Apache-2.0
"""Inputs of FlashAttention's tests, and attention in float64 as reference."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pytest
import torch

from vllm._kernels import flash_attn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


#: Version 3 loads whole blocks from large pages and contiguous caches, so the memory after the last
#: key is multiplied by zero and must be finite. Version 2 reads only keys.
HOPPER = 3


#: Relative error from rounding weights and results.
EPSILON = {torch.bfloat16: 2**-8, torch.float16: 2**-11}


#: Relative error of the hardware's tanh, which caps are computed with.
TANH = 2**-10


@pytest.fixture(name="dtype", params=list(EPSILON), ids=["bfloat16", "float16"])
def half_dtype(request: pytest.FixtureRequest) -> torch.dtype:
    chosen: torch.dtype = request.param
    return chosen


@pytest.fixture(name="version", params=[2, HOPPER], ids=["version 2", "version 3"])
def installed_version(request: pytest.FixtureRequest) -> int:
    chosen: int = request.param
    reason = flash_attn.fa_version_unsupported_reason(chosen)
    if reason is not None:
        pytest.skip(reason)
    return chosen


def attend(
    function: Callable[..., Any], *arguments: Any, **given: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Call a function; return its result and sums, or skip if its kernel is not compiled."""
    try:
        found: tuple[torch.Tensor, torch.Tensor] = function(
            *arguments, return_softmax_lse=True, **given
        )
    except RuntimeError as error:
        if "VLLM_FA_SET=full" not in str(error):
            raise
        pytest.skip(str(error))
    return found


class Mask:
    """The keys that a query sees, and the changes to its scores."""

    def __init__(
        self,
        *,
        causal: bool = False,
        window: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        slopes: torch.Tensor | None = None,
    ) -> None:
        self.causal, self.window, self.softcap, self.slopes = causal, window, softcap, slopes

    def arguments(self) -> dict[str, Any]:
        return {
            "causal": self.causal,
            "window_size": self.window,
            "softcap": self.softcap,
            "alibi_slopes": self.slopes,
        }

    def check(
        self,
        version: int,
        got: torch.Tensor,
        lse: torch.Tensor,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
    ) -> None:
        """Compare one sequence with the reference.

        Shapes: got and q [queries, heads, size], lse [heads, queries], k and v [keys, kv_heads,
        size].
        """
        queries, heads, size = q.shape
        keys = k.shape[0]
        group = heads // k.shape[1]
        wide_k, wide_v = (x.double().repeat_interleave(group, dim=1) for x in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q.double(), wide_k) / math.sqrt(size)
        if self.softcap:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        place = torch.arange(queries)[:, None] + keys - queries
        distance = place - torch.arange(keys)[None, :]
        if self.slopes is not None:
            scores = scores - self.slopes.double()[:, None, None] * distance.abs()
        left, right = self.window
        seen = torch.ones_like(distance, dtype=torch.bool)
        if self.causal or right >= 0:
            seen &= distance >= -(0 if self.causal else right)
        if left >= 0:
            seen &= distance <= left
        scores = scores.masked_fill(~seen, -math.inf)
        sums = (
            torch.logsumexp(scores, dim=-1)
            if keys
            else torch.full((heads, queries), -math.inf, dtype=torch.float64)
        )
        weights = torch.exp(scores - sums.masked_fill(sums == -math.inf, 0)[..., None])
        want = torch.einsum("hqk,khd->qhd", weights, wide_v)
        spread = torch.einsum("hqk,khd->qhd", weights, wide_v.abs())
        bound = (2 * EPSILON[got.dtype] + 2 * self.softcap * TANH) * spread + 1e-5
        assert got.isfinite().all()
        assert ((got.double() - want).abs() <= bound).all(), (got.double() - want).abs().max()
        want_lse = sums if version == HOPPER else sums.masked_fill(sums == -math.inf, math.inf)
        if self.causal and self.slopes is not None:
            # A causal kernel adds its bias from the first key on. That shifts all scores of a
            # query equally, and with them the sum.
            return
        torch.testing.assert_close(
            lse.double(), want_lse, rtol=1e-4, atol=1e-3 + self.softcap * TANH
        )


def starts(lengths: Sequence[int]) -> torch.Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)


def paged(
    version: int, keys: Sequence[int], page: int, shape: tuple[int, int], dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Store sequences in shuffled pages; return the caches and the block table.

    Table entries after the last page name no page. Rows that are not keys are NaN, or 1000 for
    version 3.
    """
    counts = [-(-length // page) for length in keys]
    order = torch.randperm(sum(counts) + 3)
    caches = [
        torch.full((len(order), page, *shape), 1000.0 if version == HOPPER else math.nan).to(dtype)
        for _ in range(2)
    ]
    table = torch.full((len(keys), max(counts, default=0) or 1), 1 << 30, dtype=torch.int32)
    used = 0
    for row, (length, count) in enumerate(zip(keys, counts, strict=True)):
        table[row, :count] = order[used : used + count]
        used += count
        for cache in caches:
            for number in range(count):
                rows = min(page, length - number * page)
                cache[table[row, number], :rows] = torch.randn(rows, *shape).to(dtype)
    return caches[0], caches[1], table


def of_sequence(cache: torch.Tensor, table: torch.Tensor, row: int, length: int) -> torch.Tensor:
    pages = table[row, : -(-length // cache.shape[1])].long()
    return cache[pages].flatten(0, 1)[:length]


MASKS: dict[str, dict[str, Any]] = {
    "all": {},
    "causal": {"causal": True},
    "window": {"causal": True, "window": (20, 0)},
    "both sides": {"window": (7, 11)},
    "softcap": {"causal": True, "softcap": 8.0},
    "alibi": {"causal": True, "slopes": True},
}


#: Version 3 does not support slopes.
CASES = [
    (version, name)
    for version in (2, HOPPER)
    for name in MASKS
    if (version, name) != (HOPPER, "alibi")
]


HEADS = [(4, 4), (8, 2), (6, 1)]


def mask(name: str, heads: int) -> Mask:
    given = dict(MASKS[name])
    if given.pop("slopes", False):
        given["slopes"] = torch.rand(heads) * 0.2
    return Mask(**given)
