# SPDX-License-Identifier: Apache-2.0
"""Attention over NaN scores, in every lane: the row's result is NaN, others are not.

Every key and every query has one nonzero element, so a score is that element of its key.
test_not_a_number.py tests the other ops.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import attention_batches
import pytest
import torch

from vllm._kernels import loader

if TYPE_CHECKING:
    from collections.abc import Callable

    RowsWithNan = Callable[..., torch.Tensor]

#: Same as in conftest.py. Only the CPU has paged attention and attention over latent rows, and only
#: GPUs have dense_decode_fwd.
DEVICE = os.environ.get("KERNEL_TEST_DEVICE", "cpu")
only_cpu = pytest.mark.skipif(DEVICE != "cpu", reason="the libraries for GPUs have no such op")
#: Set where an AMD GPU is emulated.
ARCHITECTURE = os.environ.get("KERNEL_TEST_ARCHITECTURE", "")
only_emulated = pytest.mark.skipif(
    DEVICE != "emulated" or ARCHITECTURE != "",
    reason="FlashMLA's library is for one GPU; test_flashmla.py runs on it",
)
#: Keys of a request, and number of positions for each kind of NaN: a tail, vectors and a tail on
#: every target, two tiles.
LENGTHS = {1: None, 7: None, 16: None, 40: None, 67: 40, 150: 24}
HEAD, BLOCK = 16, 16


def softmax(scores: torch.Tensor, sink: float | None = None) -> torch.Tensor:
    """torch's softmax in float64; without a score above -infinity, all weights are zero."""
    scores = scores.double()
    if sink is not None:
        scores = torch.cat(
            (scores, torch.full((*scores.shape[:-1], 1), sink, dtype=torch.float64)), -1
        )
    weights = torch.where((scores == -math.inf).all(-1, keepdim=True), 0.0, scores.softmax(-1))
    return weights if sink is None else weights[..., :-1]


def compare(got: torch.Tensor, want: torch.Tensor) -> None:
    attention_batches.compare(got, want, equal_nan=True)


class Paged:
    """A cache of requests of equal length, filled by the op.

    Key k of request r has the score ``scores[r, k]``.
    """

    def __init__(self, ops: Any, scores: torch.Tensor) -> None:
        self.ops, self.scores = ops, scores
        self.requests, self.length = scores.shape
        self.dtype = scores.dtype
        blocks = -(-self.length // BLOCK)
        self.table = torch.arange(self.requests * blocks, dtype=torch.int32).view(
            self.requests, blocks
        )
        keys = torch.zeros(self.requests, self.length, 1, HEAD, dtype=self.dtype)
        # Copies bits, because the element may be a signalling NaN.
        keys[..., 0, 5] = scores
        self.values = torch.randn(self.requests, self.length, 1, HEAD).to(self.dtype)
        memory = torch.full((self.table.numel(), 1, 2 * BLOCK, HEAD), math.nan, dtype=self.dtype)
        self.key_cache, self.value_cache = memory.chunk(2, dim=2)
        slots = (
            torch.arange(self.requests)[:, None] * blocks * BLOCK + torch.arange(self.length)
        ).flatten()
        ops.cpu_attn_reshape_and_cache(
            keys.flatten(0, 1),
            self.values.flatten(0, 1),
            self.key_cache,
            self.value_cache,
            slots,
            "vec",
        )

    def query(self, tokens: int) -> torch.Tensor:
        """For each request, the given number of tokens with one head."""
        query = torch.zeros(self.requests * tokens, 1, HEAD, dtype=self.dtype)
        query[..., 5] = 1
        return query

    def run(self, query: torch.Tensor, *, split: bool = False, **changed: Any) -> torch.Tensor:
        """Return the result as [requests, tokens, HEAD]."""
        tokens = len(query) // self.requests
        starts = torch.arange(self.requests + 1, dtype=torch.int32) * tokens
        lengths = torch.full((self.requests,), self.length, dtype=torch.int32)
        metadata = self.ops.get_scheduler_metadata(
            self.requests,
            1,
            1,
            HEAD,
            lengths,
            self.dtype,
            starts,
            True,
            -1,
            "vec",
            split,
            None,
        )
        arguments: dict[str, Any] = {
            "query": query,
            "key_cache": self.key_cache,
            "value_cache": self.value_cache,
            "output": torch.full_like(query, 7.0),
            "query_start_loc": starts,
            "seq_lens": lengths,
            "scale": 1.0,
            "causal": True,
            "alibi_slopes": None,
            "sliding_window_size": -1,
            "block_table": self.table,
            "softcap": 0.0,
            "scheduler_metadata": metadata,
            "s_aux": None,
            "dynamic_causal": None,
        }
        arguments |= changed
        self.ops.cpu_attention_with_kv_cache(**arguments)
        output: torch.Tensor = arguments["output"]
        return output.view(self.requests, tokens, HEAD)

    def reference(self, scores: torch.Tensor, sink: float | None = None) -> torch.Tensor:
        """Result of the last token of each request."""
        return torch.einsum("rk,rkd->rd", softmax(scores, sink), self.values[:, :, 0].double())


@pytest.fixture(params=LENGTHS)
def paged(
    request: pytest.FixtureRequest, ops: Any, rows_with_nan: RowsWithNan, dtype: torch.dtype
) -> Paged:
    if DEVICE != "cpu":
        pytest.skip("the libraries for GPUs have no such op")
    return Paged(ops, rows_with_nan(request.param, dtype, positions=LENGTHS[request.param]))


def test_scores(paged: Paged) -> None:
    compare(paged.run(paged.query(1))[:, 0], paged.reference(paged.scores))


def test_capped_scores(paged: Paged) -> None:
    """A cap turns infinities into numbers, but not NaN."""
    capped = 2 * torch.tanh(paged.scores.double() / 2)
    compare(paged.run(paged.query(1), softcap=2.0)[:, 0], paged.reference(capped))


def test_scores_with_slopes(paged: Paged) -> None:
    scores = paged.scores.double() + 0.125 * (torch.arange(paged.length) - paged.length + 1)
    compare(
        paged.run(paged.query(1), alibi_slopes=torch.tensor([0.125]))[:, 0], paged.reference(scores)
    )


@pytest.mark.parametrize("sink", [0.5, math.inf, -math.inf, math.nan, -math.nan])
def test_scores_with_sinks(paged: Paged, sink: float) -> None:
    compare(
        paged.run(paged.query(1), s_aux=torch.tensor([sink]))[:, 0],
        paged.reference(paged.scores, sink),
    )


@only_cpu
@pytest.mark.parametrize("length", LENGTHS)
def test_query_of_nan(
    ops: Any, dtype: torch.dtype, length: int, rows_with_nan: RowsWithNan
) -> None:
    """NaN in any element of the query makes all its scores NaN, but not another request's."""
    queries = rows_with_nan(HEAD, dtype)
    batch = Paged(ops, torch.randn(2 * len(queries), length).to(dtype))
    query = batch.query(1).view(len(queries), 2, HEAD)
    query[:, 0] = queries
    output = batch.run(query.view(-1, 1, HEAD)).view(len(queries), 2, HEAD)
    assert bool(output[:, 0].isnan().all())
    compare(output[:, 1], batch.reference(batch.scores).view(len(queries), 2, HEAD)[:, 1])


@only_cpu
@pytest.mark.parametrize("softcap", [0.0, 2.0])
def test_sinks_of_nan_and_queries_of_nan(ops: Any, dtype: torch.dtype, softcap: float) -> None:
    batch = Paged(ops, torch.randn(3, 40).to(dtype))
    query = batch.query(1)
    query[1] = math.nan
    output = batch.run(query, softcap=softcap, s_aux=torch.tensor([0.5]))
    assert output.isnan().flatten(1).all(-1).tolist() == [False, True, False]
    assert bool(batch.run(query, softcap=softcap, s_aux=torch.tensor([math.nan])).isnan().all())


@only_cpu
@pytest.mark.parametrize("tokens", [3, 40, 150])
def test_many_tokens(ops: Any, rows_with_nan: RowsWithNan, dtype: torch.dtype, tokens: int) -> None:
    """Results are NaN for tokens that see a NaN key; later keys do not matter."""
    scores = rows_with_nan(tokens, dtype, positions=min(tokens, 12))
    batch = Paged(ops, scores)
    hidden = torch.arange(tokens)[None, :] > torch.arange(tokens)[:, None]
    weights = softmax(
        scores.double()[:, None, :].expand(-1, tokens, -1).masked_fill(hidden, -math.inf)
    )
    compare(
        batch.run(batch.query(tokens)),
        torch.einsum("rqk,rkd->rqd", weights, batch.values[:, :, 0].double()),
    )


@only_cpu
@pytest.mark.parametrize("sink", [None, 0.5, math.inf, -math.inf, math.nan])
def test_parts_that_are_merged(
    ops: Any, rows_with_nan: RowsWithNan, dtype: torch.dtype, sink: float | None
) -> None:
    """The keys of one token are divided among threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        for scores in rows_with_nan(2000, dtype, positions=7).split(1):
            batch = Paged(ops, scores)
            sinks = None if sink is None else torch.tensor([sink])
            compare(
                batch.run(batch.query(1), split=True, s_aux=sinks)[:, 0],
                batch.reference(scores, sink),
            )
    finally:
        torch.set_num_threads(threads)


@only_cpu
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("length", [*LENGTHS, 2000])
def test_latent_rows(
    ops: Any, rows_with_nan: RowsWithNan, dtype: torch.dtype, length: int, threads: int
) -> None:
    scores = rows_with_nan(length, dtype, positions=LENGTHS.get(length, 3))
    requests, width, values = len(scores), 24, 16
    rows = torch.randn(requests, length, width).to(dtype)
    # Values are the first elements of a row.
    rows[..., values:] = 0
    rows[..., 20] = scores
    query = torch.zeros(requests, 1, width, dtype=dtype)
    query[..., 20] = 1
    out = torch.full((requests, 1, values), 7.0, dtype=dtype)
    table = torch.arange(requests, dtype=torch.int32)[:, None]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ops.mla_decode_kvcache(
            out, query, rows, 1.0, table, torch.full((requests,), length, dtype=torch.int32)
        )
    finally:
        torch.set_num_threads(before)
    compare(out[:, 0], torch.einsum("rk,rkd->rd", softmax(scores), rows[..., :values].double()))


@only_emulated
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_flashmla(rows_with_nan: RowsWithNan, dtype: torch.dtype, parts: int) -> None:
    """Three pages, as one part or as three merged parts."""
    width, values, page, pages = 576, 512, 64, 3
    scores = rows_with_nan(page * pages - 5, dtype, positions=5)[::3]
    sequences, length = scores.shape
    rows = torch.randn(sequences, pages * page, width).to(dtype)
    rows[..., values:] = 0
    rows[:, :length, 530] = scores
    query = torch.zeros(sequences, 1, 2, width, dtype=dtype)
    query[..., 530] = 1
    # Each call has one sequence, in one or three parts: (first sequence, first page, first split,
    # end sequence, end page).
    for sequence in range(sequences):
        cuts = [
            [0, pages * i // parts, i, 0, pages * (i + 1) // parts, 0, 0, 0] for i in range(parts)
        ]
        out, lse, *_ = loader.namespace("_flashmla_C").dense_decode_fwd(
            q=query[sequence : sequence + 1],
            kcache=rows[sequence].view(pages, page, 1, width),
            head_size_v=values,
            seqlens_k=torch.tensor([length], dtype=torch.int32),
            block_table=torch.arange(pages, dtype=torch.int32)[None],
            softmax_scale=1.0,
            is_causal=False,
            tile_scheduler_metadata=torch.tensor(cuts, dtype=torch.int32),
            num_splits=torch.tensor([0, parts], dtype=torch.int32),
            out_=None,
        )
        assert bool(scores[sequence].isnan().any())
        assert bool(out.isnan().all())
        assert bool(lse.isnan().all())


#: Logarithms of sums; infinity means that there was no key.
LSES = [0.5, -2.0, math.inf, -math.inf]


@pytest.mark.parametrize("width", [1, 8, 37])
def test_merged_states(
    ops: Any, dtype: torch.dtype, width: int, rows_with_nan: RowsWithNan
) -> None:
    """NaN on either side, for all values of the other side."""
    nan = rows_with_nan(1, torch.float32).unique_consecutive().flatten()
    nan = nan[nan.isnan()]
    lses = torch.cat((torch.tensor(LSES), nan))
    prefix_lse, suffix_lse = (
        side.flatten()[None].contiguous() for side in torch.meshgrid(lses, lses, indexing="ij")
    )
    tokens = prefix_lse.shape[1]
    prefix, suffix = (torch.randn(tokens, 1, width).to(dtype) for _ in range(2))
    out, lse = torch.full_like(prefix, 7.0), torch.full_like(prefix_lse, 7.0)
    ops.merge_attn_states(out, lse, prefix, prefix_lse, suffix, suffix_lse, None)
    a, b = (side.double().masked_fill(side.isinf(), -math.inf) for side in (prefix_lse, suffix_lse))
    want = torch.where(a.isnan() | b.isnan(), math.nan, torch.logaddexp(a, b))
    torch.testing.assert_close(lse.double(), want, rtol=1e-5, atol=1e-6, equal_nan=True)
    shares = [
        torch.where(want == -math.inf, 0.0, (side - want).exp()).t()[..., None] for side in (a, b)
    ]
    compare(out, shares[0] * prefix.double() + shares[1] * suffix.double())
