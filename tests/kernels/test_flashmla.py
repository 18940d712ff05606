# SPDX-License-Identifier: Apache-2.0
"""Attention over a cache of latent rows against attention in float64."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import pytest
import torch

from vllm import _ops
from vllm.v1.attention.ops import flashmla

if TYPE_CHECKING:
    from collections.abc import Sequence

#: As in conftest.py.
DEVICE = os.environ.get("KERNEL_TEST_DEVICE", "cpu")
WHY_NOT = (
    ""
    if DEVICE == "emulated" and "_flashmla_C" in _ops.available()
    else f"tests on {DEVICE!r}, without the library"
    if DEVICE != "cuda"
    else flashmla.is_flashmla_dense_supported()[1]
)
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "")]

WIDTH, VALUES, PAGE = 576, 512, 64
#: Relative error of rounding weights and results.
EPSILON = {torch.bfloat16: 2**-8, torch.float16: 2**-11}


@pytest.fixture(params=list(EPSILON), ids=["bfloat16", "float16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    chosen: torch.dtype = request.param
    return chosen


class Batch:
    """Queries and caches of sequences in shuffled pages.

    What is no row of a sequence is NaN or infinity, in pages and behind them, and where there is no page the table names none that exists.
    """

    def __init__(self, lengths: Sequence[int], queries: int, heads: int, dtype: torch.dtype, *, spread: float = 1.0) -> None:
        self.lengths, self.queries, self.heads = list(lengths), queries, heads
        counts = [-(-length // PAGE) for length in lengths]
        order = torch.randperm(sum(counts) + 2)
        self.cache = torch.full((len(order), PAGE, 1, WIDTH), math.nan).to(dtype)
        self.cache[:, 1::2] = math.inf
        self.table = torch.full((len(lengths), max(counts, default=0) + 1), 1 << 30, dtype=torch.int32)
        self.table[:, 1::2] = -1
        self.rows = []
        used = 0
        for sequence, (length, count) in enumerate(zip(lengths, counts, strict=True)):
            pages = order[used : used + count]
            used += count
            self.table[sequence, :count] = pages
            # Rows of different sizes: largest scores change from page to page.
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

    def check(self, got: torch.Tensor, lse: torch.Tensor, *, causal: bool = False, scale: float = WIDTH**-0.5) -> None:
        assert got.shape == (len(self.lengths), self.queries, self.heads, VALUES)
        assert (lse.shape, lse.dtype) == ((len(self.lengths), self.heads, self.queries), torch.float32)
        assert got.dtype == self.q.dtype
        assert got.isfinite().all()
        for sequence, rows in enumerate(self.rows):
            length, keys = len(rows), rows.double()
            scores = torch.einsum("qhd,kd->hqk", self.q[sequence].double(), keys) * scale
            if causal:
                place = torch.arange(self.queries)[:, None] + length - self.queries
                scores = scores.masked_fill(torch.arange(length)[None, :] > place, -math.inf)
            sums = torch.logsumexp(scores, dim=-1) if length else torch.full((self.heads, self.queries), -math.inf, dtype=torch.float64)
            weights = torch.exp(scores - sums.masked_fill(sums == -math.inf, 0)[..., None])
            want = torch.einsum("hqk,kd->qhd", weights, keys[:, :VALUES])
            bound = 2 * EPSILON[got.dtype] * torch.einsum("hqk,kd->qhd", weights, keys[:, :VALUES].abs()) + 1e-5
            error = (got[sequence].double() - want).abs()
            assert (error <= bound).all(), (sequence, error.max())
            torch.testing.assert_close(lse[sequence].double(), sums.masked_fill(sums == -math.inf, math.inf), rtol=1e-5, atol=1e-4)


def op() -> Any:
    return _ops.namespace("_flashmla_C").dense_decode_fwd


def metadata(parts: Sequence[tuple[int, int, int, int, int]], splits: Sequence[int]) -> dict[str, torch.Tensor]:
    """Parts as (first sequence, first page, first split, end sequence, end page), and how many pieces each sequence is cut into."""
    begins = torch.cumsum(torch.tensor([0, *splits]), 0).to(torch.int32)
    rows = torch.tensor([[*part, 0, 0, 0] for part in parts], dtype=torch.int32)
    return {"tile_scheduler_metadata": rows, "num_splits": begins}


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 300])
def test_one_query(length: int, dtype: torch.dtype) -> None:
    batch = Batch([length], 1, 16, dtype)
    out, lse, *_ = op()(**batch.arguments())
    batch.check(out, lse)


@pytest.mark.parametrize(("queries", "heads"), [(1, 64), (1, 128), (3, 16), (2, 128), (5, 7), (1, 1)])
@pytest.mark.parametrize("causal", [False, True])
def test_heads_and_queries(queries: int, heads: int, causal: bool, dtype: torch.dtype) -> None:
    batch = Batch([130, 66], queries, heads, dtype)
    out, lse, *_ = op()(**batch.arguments() | {"is_causal": causal})
    batch.check(out, lse, causal=causal)


@pytest.mark.parametrize("causal", [False, True])
def test_ragged(causal: bool, dtype: torch.dtype) -> None:
    batch = Batch([0, 65, 1, 700, 2, 64, 0, 129, 0], 3, 16, dtype, spread=3.0)
    out, lse, parts, splits = op()(**batch.arguments() | {"is_causal": causal})
    batch.check(out, lse, causal=causal)
    assert (parts.dtype, parts.shape[1]) == (torch.int32, 8)
    assert (splits.dtype, splits.shape) == (torch.int32, (10,))
    # What the first call has found out serves the next one.
    again, lse_again, *same = op()(**batch.arguments() | {"is_causal": causal, "tile_scheduler_metadata": parts, "num_splits": splits})
    assert torch.equal(out, again)
    assert torch.equal(lse, lse_again)
    assert [x.data_ptr() for x in same] == [parts.data_ptr(), splits.data_ptr()]
