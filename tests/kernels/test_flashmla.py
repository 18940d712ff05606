# SPDX-License-Identifier: Apache-2.0
"""Attention over a cache of latent rows against attention in float64."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import pytest
import torch
from flashmla_batches import EPSILON, PAGE, VALUES, WIDTH, Batch, op

from vllm._kernels import flashmla

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Same as in conftest.py. The emulation has the library; a GPU may be of another kind.
DEVICE = os.environ.get("KERNEL_TEST_DEVICE", "cpu")
WHY_NOT = flashmla.is_flashmla_dense_supported()[1] if DEVICE == "cuda" else None
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")]


@pytest.fixture(params=list(EPSILON), ids=["bfloat16", "float16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    chosen: torch.dtype = request.param
    return chosen


def metadata(
    parts: Sequence[tuple[int, int, int, int, int]], splits: Sequence[int]
) -> dict[str, torch.Tensor]:
    """Build the metadata of a plan.

    ``parts`` are (first sequence, first page, first split, end sequence, end page); ``splits`` is
    the number of parts of each sequence.
    """
    begins = torch.cumsum(torch.tensor([0, *splits]), 0).to(torch.int32)
    rows = torch.tensor([[*part, 0, 0, 0] for part in parts], dtype=torch.int32)
    return {"tile_scheduler_metadata": rows, "num_splits": begins}


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 300])
def test_one_query(length: int, dtype: torch.dtype) -> None:
    batch = Batch([length], 1, 16, dtype)
    out, lse, *_ = op()(**batch.arguments())
    batch.check(out, lse)


@pytest.mark.parametrize(
    ("queries", "heads"), [(1, 64), (1, 128), (3, 16), (2, 128), (5, 7), (1, 1)]
)
@pytest.mark.parametrize("causal", [False, True])
def test_heads_and_queries(queries: int, heads: int, dtype: torch.dtype, *, causal: bool) -> None:
    batch = Batch([130, 66], queries, heads, dtype)
    out, lse, *_ = op()(**batch.arguments() | {"is_causal": causal})
    batch.check(out, lse, causal=causal)


@pytest.mark.parametrize("causal", [False, True])
def test_ragged(dtype: torch.dtype, *, causal: bool) -> None:
    batch = Batch([0, 65, 1, 700, 2, 64, 0, 129, 0], 3, 16, dtype, spread=3.0)
    out, lse, parts, splits = op()(**batch.arguments() | {"is_causal": causal})
    batch.check(out, lse, causal=causal)
    assert (parts.dtype, parts.shape[1]) == (torch.int32, 8)
    assert (splits.dtype, splits.shape) == (torch.int32, (10,))
    # The plan of the first call serves the next one.
    again, lse_again, *same = op()(
        **batch.arguments()
        | {"is_causal": causal, "tile_scheduler_metadata": parts, "num_splits": splits}
    )
    assert torch.equal(out, again)
    assert torch.equal(lse, lse_again)
    assert [x.data_ptr() for x in same] == [parts.data_ptr(), splits.data_ptr()]


def test_splits_of_the_plan(dtype: torch.dtype) -> None:
    """A sequence that exceeds the rest of its part continues in the next one."""
    batch = Batch([100, 60 * PAGE], 1, 16, dtype)
    out, lse, parts, splits = op()(**batch.arguments())
    batch.check(out, lse)
    assert splits[-1] > 2
    assert parts[0, :3].tolist() == [0, 0, 0]
    # Parts follow one another without a gap.
    assert torch.equal(parts[1:, :2], parts[:-1, 3:5])
    assert parts[-1, 3:5].tolist() == [2, 0]


@pytest.mark.parametrize("causal", [False, True])
def test_forced_splits(dtype: torch.dtype, *, causal: bool) -> None:
    """Every page is a separate part; in one part, a causal query sees no key."""
    batch = Batch([3 * PAGE + 1, 0, 2 * PAGE], 3, 30, dtype, spread=3.0)
    ends = [(0, 1), (0, 2), (0, 3), (0, 4), (2, 1), (2, 2)]
    begins = [(0, 0), *ends[:-1]]
    places = [0, 1, 2, 3, 0, 1]
    # The part that ends after the first page of sequence 2 begins after the last page of sequence 0
    # and includes sequence 1.
    begins[4] = (1, 0)
    parts = [(*begin, split, *end) for begin, split, end in zip(begins, places, ends, strict=True)]
    out, lse, *_ = op()(**batch.arguments() | {"is_causal": causal} | metadata(parts, [4, 1, 2]))
    batch.check(out, lse, causal=causal)


def test_more_queries_than_keys(dtype: torch.dtype) -> None:
    """Queries before the first key give zeros and infinity, in one part or several."""
    batch = Batch([2, PAGE + 1], 4, 16, dtype)
    given = batch.arguments() | {"is_causal": True}
    out, lse, *_ = op()(**given)
    batch.check(out, lse, causal=True)
    assert not out[0, :2].any()
    pieces = metadata([(0, 0, 0, 1, 1), (1, 1, 1, 2, 0)], [1, 2])
    out, lse, *_ = op()(**given | pieces)
    batch.check(out, lse, causal=True)


def test_wrong_metadata_is_harmless() -> None:
    """Wrong metadata from the caller never causes accesses outside the tensors."""
    batch = Batch([100, 64], 1, 16, torch.bfloat16)
    for part in (
        (-5, -1, -3, 9, 9),
        (7, 0, 0, 9, 1),
        (1, 50, 3, 1, 70),
        (0, 1, 1 << 30, 1, 1 << 30),
        (1, 0, -(1 << 31), 0, 5),
    ):
        for splits in ([1, 1], [4, 100], [1 << 20, -(1 << 21)]):
            op()(**batch.arguments() | metadata([part, (2, 0, 0, 2, 0)], splits))


def test_pages_that_do_not_exist_are_zeros(dtype: torch.dtype) -> None:
    batch = Batch([2 * PAGE + 5], 1, 16, dtype)
    lost = batch.table[0, 1].clone()
    batch.table[0, 1] = len(batch.cache)
    out, lse, *_ = op()(**batch.arguments())
    batch.table[0, 1] = lost
    batch.rows[0][PAGE : 2 * PAGE] = 0
    batch.check(out, lse)


def test_lengths_beyond_the_table_end_with_it(dtype: torch.dtype) -> None:
    batch = Batch([2 * PAGE], 1, 16, dtype)
    given = batch.arguments() | {
        "block_table": batch.table[:, :2],
        "seqlens_k": torch.tensor([1 << 30], dtype=torch.int32),
    }
    out, lse, *_ = op()(**given)
    batch.check(out, lse)
    out, lse, *_ = op()(**given | {"seqlens_k": torch.tensor([-1], dtype=torch.int32)})
    assert not out.any()
    assert (lse == math.inf).all()


def test_scales(dtype: torch.dtype) -> None:
    for scale in (0.0, 0.3, -0.05):
        batch = Batch([70], 1, 16, dtype)
        out, lse, *_ = op()(**batch.arguments() | {"softmax_scale": scale})
        batch.check(out, lse, scale=scale)


def test_strides(dtype: torch.dtype) -> None:
    """The cache is a layer of a larger one, queries are part of a wider tensor.

    The block table is strided.
    """
    batch = Batch([130, 5], 2, 16, dtype)
    wide = torch.full((len(batch.cache), 3, PAGE, 1, WIDTH + 64), math.nan).to(dtype)
    wide[:, 1, ..., :WIDTH] = batch.cache
    queries = torch.full((2, 16, 2, WIDTH + 8), math.nan).to(dtype)
    queries[..., :WIDTH] = batch.q.transpose(1, 2)
    table = torch.cat([batch.table, batch.table], dim=1)[:, : batch.table.shape[1]]
    given = {
        "kcache": wide[:, 1, ..., :WIDTH],
        "q": queries[..., :WIDTH].transpose(1, 2),
        "block_table": table,
    }
    out, lse, *_ = op()(**batch.arguments() | given)
    batch.check(out, lse)


@pytest.mark.parametrize("folded", [False, True])
def test_into_given_memory(dtype: torch.dtype, *, folded: bool) -> None:
    batch = Batch([70, 1], 2, 16, dtype)
    memory = torch.full((2, 2, 16, VALUES), math.nan).to(dtype)
    out, lse, *_ = op()(
        **batch.arguments() | {"out_": memory.view(2, 1, 32, VALUES) if folded else memory}
    )
    assert out.data_ptr() == memory.data_ptr()
    batch.check(memory, lse)


def test_empty_inputs(dtype: torch.dtype) -> None:
    for shape in ((0, 1, 16), (2, 0, 16), (2, 1, 0)):
        q = torch.empty(*shape, WIDTH).to(dtype)
        lengths, table = (
            torch.ones(shape[0], dtype=torch.int32),
            torch.zeros(shape[0], 1, dtype=torch.int32),
        )
        cache = torch.zeros(1, PAGE, 1, WIDTH).to(dtype)
        out, lse, _, splits = op()(q, cache, VALUES, lengths, table, 1.0, True, None, None, None)
        assert (out.shape, lse.shape) == ((*shape, VALUES), (shape[0], shape[2], shape[1]))
        assert len(splits) == shape[0] + 1


def test_interface(dtype: torch.dtype) -> None:
    batch = Batch([65, 200], 2, 16, dtype)
    meta, nothing = flashmla.get_mla_metadata()
    assert nothing is None
    for _ in range(2):
        out, lse = flashmla.flash_mla_with_kvcache(
            batch.q, batch.cache, batch.table, batch.seqlens, VALUES, meta, causal=True
        )
        batch.check(out, lse, causal=True)
    assert meta.have_initialized
    assert meta.num_splits is not None
