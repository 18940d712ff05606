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

#: As in conftest.py. The emulation has the library; a GPU may be another one than it is for.
DEVICE = os.environ.get("KERNEL_TEST_DEVICE", "cpu")
WHY_NOT = flashmla.is_flashmla_dense_supported()[1] if DEVICE == "cuda" else None
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")]

WIDTH, VALUES, PAGE = 576, 512, 64
#: Relative error of rounding weights and results.
EPSILON = {torch.bfloat16: 2**-8, torch.float16: 2**-11}


@pytest.fixture(params=list(EPSILON), ids=["bfloat16", "float16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    chosen: torch.dtype = request.param
    return chosen


class Batch:
    """Queries and caches of sequences in shuffled pages.

    What is no row of a sequence is NaN or infinity, in pages and behind them, and where there is no
    page the table names none that exists.
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
    return _ops.namespace("_flashmla_C").dense_decode_fwd


def metadata(
    parts: Sequence[tuple[int, int, int, int, int]], splits: Sequence[int]
) -> dict[str, torch.Tensor]:
    """Parts as (first sequence, first page, first split, end sequence, end page), and how many pieces each sequence is cut into."""
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
    # What the first call has found out serves the next one.
    again, lse_again, *same = op()(
        **batch.arguments()
        | {"is_causal": causal, "tile_scheduler_metadata": parts, "num_splits": splits}
    )
    assert torch.equal(out, again)
    assert torch.equal(lse, lse_again)
    assert [x.data_ptr() for x in same] == [parts.data_ptr(), splits.data_ptr()]


def test_splits_of_the_plan(dtype: torch.dtype) -> None:
    """A sequence that is longer than what is left of its part goes on in the next one."""
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
    """Every page a piece of its own; one of them sees no key that a causal query may see."""
    batch = Batch([3 * PAGE + 1, 0, 2 * PAGE], 3, 30, dtype, spread=3.0)
    ends = [(0, 1), (0, 2), (0, 3), (0, 4), (2, 1), (2, 2)]
    begins = [(0, 0), *ends[:-1]]
    places = [0, 1, 2, 3, 0, 1]
    # The part that ends after the first page of sequence 2 begins behind the last page of sequence
    # 0, and has sequence 1 as well.
    begins[4] = (1, 0)
    parts = [(*begin, split, *end) for begin, split, end in zip(begins, places, ends, strict=True)]
    out, lse, *_ = op()(**batch.arguments() | {"is_causal": causal} | metadata(parts, [4, 1, 2]))
    batch.check(out, lse, causal=causal)


def test_more_queries_than_keys(dtype: torch.dtype) -> None:
    """Queries that come before the first key: zeros and infinity, whole or in pieces."""
    batch = Batch([2, PAGE + 1], 4, 16, dtype)
    given = batch.arguments() | {"is_causal": True}
    out, lse, *_ = op()(**given)
    batch.check(out, lse, causal=True)
    assert not out[0, :2].any()
    pieces = metadata([(0, 0, 0, 1, 1), (1, 1, 1, 2, 0)], [1, 2])
    out, lse, *_ = op()(**given | pieces)
    batch.check(out, lse, causal=True)


def test_metadata_of_other_batches_harms_nobody() -> None:
    """What metadata holds is the caller's; what it names is looked for inside of the tensors alone."""
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
    """A cache that is a layer of a larger one, queries that are a part of a wider tensor, a column of a table."""
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


def test_nothing_to_do(dtype: torch.dtype) -> None:
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


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "q: float32": ({"q": torch.float32}, "q is of dtype Float, expected BFloat16 or Half"),
    "q: 512 wide": (
        {"q": (2, 1, 16, 512)},
        r"q has shape \[2, 1, 16, 512\], expected \[batch, queries, heads, 576\]",
    ),
    "q: three dimensions": ({"q": (2, 16, WIDTH)}, "q has shape"),
    "cache: other dtype": (
        {"kcache": torch.float16},
        "kcache is of dtype Half, expected BFloat16, the dtype of q",
    ),
    "cache: pages of 32": (
        {"kcache": (4, 32, 1, WIDTH)},
        "kcache has shape .* pages of 64 rows that all heads share",
    ),
    "cache: two heads": ({"kcache": (4, PAGE, 2, WIDTH)}, "kcache has shape"),
    "values: 576": ({"head_size_v": 576}, "head_size_v is 576, expected 512"),
    "lengths: int64": ({"seqlens_k": torch.int64}, "seqlens_k is of dtype Long, expected Int"),
    "lengths: one": ({"seqlens_k": (1,)}, "seqlens_k has shape .* a length for each sequence"),
    "table: int64": ({"block_table": torch.int64}, "block_table is of dtype Long, expected Int"),
    "table: one row": ({"block_table": (1, 3)}, "block_table has shape .* a row for each sequence"),
    "metadata alone": (
        {"tile_scheduler_metadata": (2, 8)},
        "given alone, expected both or neither",
    ),
    "metadata: seven": (
        {"tile_scheduler_metadata": (2, 7), "num_splits": (3,)},
        r"tile_scheduler_metadata has shape .* \[parts, 8\]",
    ),
    "metadata: none": (
        {"tile_scheduler_metadata": (0, 8), "num_splits": (3,)},
        r"tile_scheduler_metadata has shape",
    ),
    "splits: two": (
        {"tile_scheduler_metadata": (2, 8), "num_splits": (2,)},
        "num_splits has shape .* one more than the number of sequences",
    ),
    "out: shape": (
        {"out_": (2, 1, 16, 500)},
        "out_ has shape .* the shape of q with 512 elements a head",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name: str) -> None:
    batch = Batch([65, 3], 1, 16, torch.bfloat16)
    given = batch.arguments()
    changed, words = WRONG[name]
    for key, change in changed.items():
        if isinstance(change, torch.dtype):
            given[key] = given[key].to(change)
        elif isinstance(change, tuple):
            dtype = torch.bfloat16 if key in {"q", "kcache", "out_"} else torch.int32
            given[key] = torch.zeros(change, dtype=dtype)
        else:
            given[key] = change
    with pytest.raises(
        RuntimeError,
        match=f"^dense_decode_fwd: {words}" if " has " in words or " is " in words else words,
    ):
        op()(**given)


def test_rows_that_begin_anywhere() -> None:
    batch = Batch([65, 3], 1, 16, torch.bfloat16)
    wide = torch.zeros(2, 1, 16, WIDTH + 4, dtype=torch.bfloat16)[..., :WIDTH]
    with pytest.raises(
        RuntimeError, match=r"q has strides .* rows that begin at multiples of 16 bytes"
    ):
        op()(**batch.arguments() | {"q": wide})
    with pytest.raises(RuntimeError, match=r"out_ has strides .* a contiguous tensor"):
        op()(
            **batch.arguments()
            | {"out_": torch.zeros(2, 1, 16, VALUES + 8, dtype=torch.bfloat16)[..., :VALUES]}
        )


def test_schema_and_fake() -> None:
    """Upstream's 0.33.0; fake tensors have the shapes of real ones."""
    schema = str(op().default._schema)
    assert schema == (
        "_flashmla_C::dense_decode_fwd(Tensor q, Tensor kcache, int head_size_v, Tensor seqlens_k, "
        "Tensor block_table, "
        "float softmax_scale, bool is_causal, Tensor(a)? tile_scheduler_metadata, Tensor(b)? "
        "num_splits, Tensor(c!)? out_) -> "
        "(Tensor(c!), Tensor, Tensor(a)?, Tensor(b)?)"
    )
    batch = Batch([65, 3], 2, 16, torch.bfloat16)
    given = batch.arguments() | {"is_causal": True}
    real = op()(**given)
    given |= {"tile_scheduler_metadata": real[2], "num_splits": real[3]}
    with torch._subclasses.FakeTensorMode() as mode:
        fake = op()(
            **{
                key: mode.from_tensor(value) if isinstance(value, torch.Tensor) else value
                for key, value in given.items()
            }
        )
    assert [(x.shape, x.dtype) for x in fake] == [(x.shape, x.dtype) for x in real]
