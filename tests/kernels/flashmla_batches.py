# SPDX-License-Identifier: Apache-2.0
"""Batches for attention over a cache of latent rows, and attention in float64 as reference."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from vllm._kernels import loader

if TYPE_CHECKING:
    from collections.abc import Sequence


WIDTH, VALUES, PAGE = 576, 512, 64


#: Relative error from rounding weights and results.
EPSILON = {torch.bfloat16: 2**-8, torch.float16: 2**-11}


class Batch:
    """Queries and caches of sequences in shuffled pages.

    Memory that is not a row of a sequence is NaN or infinity, inside and after the pages. Table
    entries without a page name one that does not exist.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        queries: int,
        heads: int,
        dtype: torch.dtype,
        *,
        spread: float = 1.0,
    ) -> None:
        self.lengths, self.queries, self.heads = list(lengths), queries, heads
        counts = [-(-length // PAGE) for length in lengths]
        order = torch.randperm(sum(counts) + 2)
        self.cache = torch.full((len(order), PAGE, 1, WIDTH), math.nan).to(dtype)
        self.cache[:, 1::2] = math.inf
        self.table = torch.full(
            (len(lengths), max(counts, default=0) + 1), 1 << 30, dtype=torch.int32
        )
        self.table[:, 1::2] = -1
        self.rows = []
        used = 0
        for sequence, (length, count) in enumerate(zip(lengths, counts, strict=True)):
            pages = order[used : used + count]
            used += count
            self.table[sequence, :count] = pages
            # Rows have different magnitudes, so the largest score changes from page to page.
            rows = (torch.randn(length, WIDTH) * (spread * torch.rand(length, 1) + 0.3)).to(dtype)
            self.rows.append(rows)
            for number, page in enumerate(pages):
                part = rows[number * PAGE : (number + 1) * PAGE]
                self.cache[page, : len(part), 0] = part
        self.q = torch.randn(len(lengths), queries, heads, WIDTH).to(dtype)
        self.seqlens = torch.tensor(self.lengths, dtype=torch.int32)

    def arguments(self) -> dict[str, Any]:
        return {
            "q": self.q,
            "kcache": self.cache,
            "head_size_v": VALUES,
            "seqlens_k": self.seqlens,
            "block_table": self.table,
            "softmax_scale": WIDTH**-0.5,
            "is_causal": False,
            "tile_scheduler_metadata": None,
            "num_splits": None,
            "out_": None,
        }

    def check(
        self,
        got: torch.Tensor,
        lse: torch.Tensor,
        *,
        causal: bool = False,
        scale: float = WIDTH**-0.5,
    ) -> None:
        assert got.shape == (len(self.lengths), self.queries, self.heads, VALUES)
        assert (lse.shape, lse.dtype) == (
            (len(self.lengths), self.heads, self.queries),
            torch.float32,
        )
        assert got.dtype == self.q.dtype
        assert got.isfinite().all()
        for sequence, rows in enumerate(self.rows):
            length, keys = len(rows), rows.double()
            scores = torch.einsum("qhd,kd->hqk", self.q[sequence].double(), keys) * scale
            if causal:
                place = torch.arange(self.queries)[:, None] + length - self.queries
                scores = scores.masked_fill(torch.arange(length)[None, :] > place, -math.inf)
            sums = (
                torch.logsumexp(scores, dim=-1)
                if length
                else torch.full((self.heads, self.queries), -math.inf, dtype=torch.float64)
            )
            weights = torch.exp(scores - sums.masked_fill(sums == -math.inf, 0)[..., None])
            want = torch.einsum("hqk,kd->qhd", weights, keys[:, :VALUES])
            bound = (
                2
                * EPSILON[got.dtype]
                * torch.einsum("hqk,kd->qhd", weights, keys[:, :VALUES].abs())
                + 1e-5
            )
            error = (got[sequence].double() - want).abs()
            assert (error <= bound).all(), (sequence, error.max())
            torch.testing.assert_close(
                lse[sequence].double(),
                sums.masked_fill(sums == -math.inf, math.inf),
                rtol=1e-5,
                atol=1e-4,
            )


def op() -> Any:
    return loader.namespace("_flashmla_C").dense_decode_fwd
