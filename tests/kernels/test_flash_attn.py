# SPDX-License-Identifier: Apache-2.0
"""FlashAttention 2 against attention in float64. Needs a GPU and the library: `make gpu-tests`."""

from __future__ import annotations

import math
import os
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pytest
import torch

from vllm import _ops, vllm_flash_attn

if TYPE_CHECKING:
    from collections.abc import Sequence

#: As in conftest.py.
DEVICE = os.environ.get("KERNEL_TEST_DEVICE", "cpu")
WHY_NOT = (
    f"tests on {DEVICE!r}, not on a GPU"
    if DEVICE != "cuda"
    else "the library _vllm_fa2_C is not installed: build it with VLLM_FA_SET"
    if "_vllm_fa2_C" not in _ops.available()
    else ""
)
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]

#: Relative error of rounding weights and results.
EPSILON = {torch.bfloat16: 2**-8, torch.float16: 2**-11}
#: Relative error of the hardware's tangent, which caps are made with.
TANH = 2**-10


@pytest.fixture(params=list(EPSILON), ids=["bfloat16", "float16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    chosen: torch.dtype = request.param
    return chosen


class Mask:
    """Which keys a query sees, and what is done to scores."""

    def __init__(
        self, *, causal: bool = False, window: tuple[int, int] = (-1, -1), softcap: float = 0.0, slopes: torch.Tensor | None = None
    ) -> None:
        self.causal, self.window, self.softcap, self.slopes = causal, window, softcap, slopes

    def arguments(self) -> dict[str, Any]:
        return {"causal": self.causal, "window_size": self.window, "softcap": self.softcap, "alibi_slopes": self.slopes}

    def check(self, got: torch.Tensor, lse: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        """One sequence: got and q [queries, heads, size], lse [heads, queries], k and v [keys, kv_heads, size]."""
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
        sums = torch.logsumexp(scores, dim=-1) if keys else torch.full((heads, queries), -math.inf, dtype=torch.float64)
        weights = torch.exp(scores - sums.masked_fill(sums == -math.inf, 0)[..., None])
        want = torch.einsum("hqk,khd->qhd", weights, wide_v)
        spread = torch.einsum("hqk,khd->qhd", weights, wide_v.abs())
        bound = (2 * EPSILON[got.dtype] + 2 * self.softcap * TANH) * spread + 1e-5
        assert got.isfinite().all()
        assert ((got.double() - want).abs() <= bound).all(), (got.double() - want).abs().max()
        want_lse = sums.masked_fill(sums == -math.inf, math.inf)
        if self.causal and self.slopes is not None:
            return  # a causal kernel adds its bias from the first key on, which shifts every score of a query alike
        torch.testing.assert_close(lse.double(), want_lse, rtol=1e-4, atol=1e-3 + self.softcap * TANH)


def starts(lengths: Sequence[int]) -> torch.Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)


def paged(keys: Sequence[int], page: int, shape: tuple[int, int], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Caches of sequences in shuffled pages, and the table; what is no key is NaN, and the table names no page behind the last one."""
    counts = [-(-length // page) for length in keys]
    order = torch.randperm(sum(counts) + 3)
    caches = [torch.full((len(order), page, *shape), math.nan).to(dtype) for _ in range(2)]
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
HEADS = [(4, 4), (8, 2), (6, 1)]


def mask(name: str, heads: int) -> Mask:
    given = dict(MASKS[name])
    if given.pop("slopes", False):
        given["slopes"] = torch.rand(heads) * 0.2
    return Mask(**given)


@pytest.mark.parametrize("size", [64, 128, 40, 120])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("name", MASKS)
def test_packed(size: int, heads: tuple[int, int], name: str, dtype: torch.dtype) -> None:
    queries, keys = [1, 5, 130, 64, 33], [7, 5, 300, 64, 129]
    q = torch.randn(sum(queries), heads[0], size).to(dtype)
    k, v = (torch.randn(sum(keys), heads[1], size).to(dtype) for _ in range(2))
    how, begin, first = mask(name, heads[0]), starts(queries), starts(keys)
    got, lse = vllm_flash_attn.flash_attn_varlen_func(
        q, k, v, max(queries), begin, max(keys), first, return_softmax_lse=True, **how.arguments()
    )
    for row in range(len(queries)):
        mine, theirs = slice(begin[row], begin[row + 1]), slice(first[row], first[row + 1])
        how.check(got[mine], lse[:, mine], q[mine], k[theirs], v[theirs])


@pytest.mark.parametrize("page", [16, 48, 256])
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("name", MASKS)
def test_paged(page: int, size: int, heads: tuple[int, int], name: str, dtype: torch.dtype) -> None:
    queries, keys = [1, 17, 3, 100, 1], [1, 17, 500, 777, 0]
    q = torch.randn(sum(queries), heads[0], size).to(dtype)
    k, v, table = paged(keys, page, (heads[1], size), dtype)
    how, begin = mask(name, heads[0]), starts(queries)
    got, lse = vllm_flash_attn.flash_attn_varlen_func(
        *(q, k, v, max(queries), begin, max(keys)),
        seqused_k=torch.tensor(keys, dtype=torch.int32),
        block_table=table,
        return_softmax_lse=True,
        **how.arguments(),
    )
    for row, length in enumerate(keys):
        mine = slice(begin[row], begin[row + 1])
        how.check(got[mine], lse[:, mine], q[mine], of_sequence(k, table, row, length), of_sequence(v, table, row, length))


@pytest.mark.parametrize("splits", [0, 1, 3, 128])
@pytest.mark.parametrize("page", [16, 256])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("name", ["causal", "window", "softcap", "alibi"])
def test_decode(splits: int, page: int, heads: tuple[int, int], name: str, dtype: torch.dtype) -> None:
    keys, size = [1, 4000, 0, 2049, 255], 128
    q = torch.randn(len(keys), heads[0], size).to(dtype)
    k, v, table = paged(keys, page, (heads[1], size), dtype)
    how, out = mask(name, heads[0]), torch.empty_like(q)
    got, lse = vllm_flash_attn.flash_attn_varlen_func(
        *(q, k, v, 1, starts([1] * len(keys)), max(keys)),
        seqused_k=torch.tensor(keys, dtype=torch.int32),
        block_table=table,
        num_splits=splits,
        return_softmax_lse=True,
        out=out,
        **how.arguments(),
    )
    assert got.data_ptr() == out.data_ptr()
    for row, length in enumerate(keys):
        mine = slice(row, row + 1)
        how.check(got[mine], lse[:, mine], q[mine], of_sequence(k, table, row, length), of_sequence(v, table, row, length))


def test_one_split_is_the_same_in_every_batch(dtype: torch.dtype) -> None:
    keys, size = [1000, 3000], 64
    q = torch.randn(2, 8, size).to(dtype)
    k, v, table = paged(keys, 16, (2, size), dtype)
    lengths = torch.tensor(keys, dtype=torch.int32)

    def run(rows: slice) -> torch.Tensor:
        count = len(keys[rows])
        given = {"seqused_k": lengths[rows], "block_table": table[rows], "num_splits": 1}
        found = vllm_flash_attn.flash_attn_varlen_func(q[rows], k, v, 1, starts([1] * count), 4000, **given)
        assert isinstance(found, torch.Tensor)
        return found

    assert torch.equal(run(slice(0, 2))[1:], run(slice(1, 2)))


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("name", MASKS)
def test_caches(heads: tuple[int, int], queries: int, name: str, dtype: torch.dtype) -> None:
    keys, size = [200, 3, 77], 64
    q = torch.randn(3, queries, heads[0], size).to(dtype)
    k, v = (torch.randn(3, 256, heads[1], size).to(dtype) for _ in range(2))
    how = mask(name, heads[0])
    got, lse = vllm_flash_attn.flash_attn_with_kvcache(
        q, k, v, cache_seqlens=torch.tensor(keys, dtype=torch.int32), return_softmax_lse=True, **how.arguments()
    )
    for row, length in enumerate(keys):
        how.check(got[row], lse[row], q[row], k[row, :length], v[row, :length])


@pytest.mark.parametrize("layout", ["one piece", "pages"])
def test_appending(layout: str, dtype: torch.dtype) -> None:
    keys, size, new = [200, 3], 128, 5
    q = torch.randn(2, new, 4, size).to(dtype)
    fresh = [torch.randn(2, new, 2, size).to(dtype) for _ in range(2)]
    table = torch.tensor([[2, 0], [1, 3]], dtype=torch.int32) if layout == "pages" else None
    shape = (2, 256, 2, size) if table is None else (4, 128, 2, size)
    caches = [torch.randn(*shape).to(dtype) for _ in range(2)]
    before = [cache.clone() for cache in caches]
    lengths = torch.tensor(keys, dtype=torch.int32)
    got, lse = vllm_flash_attn.flash_attn_with_kvcache(
        q, *caches, *fresh, cache_seqlens=lengths, block_table=table, causal=True, return_softmax_lse=True
    )
    for row, length in enumerate(keys):
        whole = [cache[table[row].long()].flatten(0, 1) if table is not None else cache[row] for cache in (*before, *caches)]
        want = [torch.cat([old[:length], added[row], old[length + new :]]) for old, added in zip(whole[:2], fresh, strict=True)]
        assert all(torch.equal(now, then) for now, then in zip(whole[2:], want, strict=True))
        Mask(causal=True).check(got[row], lse[row], q[row], want[0][: length + new], want[1][: length + new])


@pytest.mark.parametrize("interleaved", ["interleaved", "halves"])
def test_rotating(interleaved: str, dtype: torch.dtype) -> None:
    keys, size, rotated, new = [40, 7], 64, 32, 3
    q, k, v = (torch.randn(2, new, heads, size).to(dtype) for heads in (4, 2, 2))
    caches = [torch.randn(2, 128, 2, size).to(dtype) for _ in range(2)]
    before = [cache.clone() for cache in caches]
    angles = torch.rand(128, rotated // 2) * 6
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)

    def turn(x: torch.Tensor, place: int) -> torch.Tensor:
        pairs = x[..., :rotated].double()
        a, b = (pairs[..., 0::2], pairs[..., 1::2]) if interleaved == "interleaved" else pairs.chunk(2, dim=-1)
        c, s = (t[place : place + new, None].double() for t in (cos, sin))
        turned = (a * c - b * s, a * s + b * c)
        joined = torch.stack(turned, dim=-1).flatten(-2) if interleaved == "interleaved" else torch.cat(turned, dim=-1)
        return torch.cat([joined.to(dtype), x[..., rotated:]], dim=-1)

    got, lse = vllm_flash_attn.flash_attn_with_kvcache(
        *(q, *caches, k, v, cos, sin, torch.tensor(keys, dtype=torch.int32)),
        causal=True,
        rotary_interleaved=interleaved == "interleaved",
        return_softmax_lse=True,
    )
    for row, length in enumerate(keys):
        end = length + new
        torch.testing.assert_close(caches[0][row, length:end], turn(k[row], length), rtol=EPSILON[dtype], atol=EPSILON[dtype])
        whole = torch.cat([before[0][row, :length], caches[0][row, length:end]])
        Mask(causal=True).check(got[row], lse[row], turn(q[row], length), whole, torch.cat([before[1][row, :length], v[row]]))


def test_nothing_to_do(dtype: torch.dtype) -> None:
    k = torch.randn(4, 16, 2, 64).to(dtype)
    given = {"seqused_k": torch.zeros(2, dtype=torch.int32), "block_table": torch.zeros(2, 1, dtype=torch.int32)}
    none = torch.empty(0, 4, 64, dtype=dtype)
    got, lse = vllm_flash_attn.flash_attn_varlen_func(none, k, k, 0, starts([0, 0]), 0, return_softmax_lse=True, **given)
    assert (got.shape, lse.shape) == ((0, 4, 64), (4, 0))
    got, lse = vllm_flash_attn.flash_attn_varlen_func(
        torch.ones(2, 4, 64).to(dtype), k, k, 1, starts([1, 1]), 0, return_softmax_lse=True, **given
    )
    assert not got.any()
    assert (lse == math.inf).all()


def test_wrong_arguments() -> None:
    q, k = torch.randn(2, 4, 64).half(), torch.randn(4, 16, 2, 64).half()
    lengths, table = torch.ones(2, dtype=torch.int32), torch.zeros(2, 1, dtype=torch.int32)

    def call(**changed: Any) -> None:
        given = {"q": q, "k": k, "v": k, "seqused_k": lengths, "block_table": table, "max_seqlen_q": 1, "max_seqlen_k": 1} | changed
        vllm_flash_attn.flash_attn_varlen_func(cu_seqlens_q=starts([1, 1]), **given)

    for changed, words in (
        ({"q": q.float()}, "q is of dtype Float, expected BFloat16 or Half"),
        ({"v": k.bfloat16()}, "v is of dtype BFloat16, expected Half"),
        ({"k": k[:, :, :, :56], "v": k[:, :, :, :56]}, "the head size of q, 64"),
        ({"k": k[:, :10], "v": k[:, :10]}, "pages of 10 rows, expected a multiple of 16"),
        ({"q": torch.randn(2, 3, 64).half()}, "divides the 3 heads of q"),
        ({"q": torch.randn(2, 4, 60).half()}, "rows that begin at multiples of 16 bytes"),
        ({"q": q[..., :60], "k": k[..., :60], "v": k[..., :60]}, "heads of size 60, expected a multiple of 8"),
        ({"block_table": table.long()}, "block_table is of dtype Long, expected Int"),
        ({"block_table": table[:1]}, r"expected \[2, pages of the longest sequence\]"),
        ({"seqused_k": lengths[:1]}, "seqused_k has shape"),
        ({"out": torch.empty(2, 4, 64)}, "out is of dtype Float"),
        ({"num_splits": 129}, "num_splits is 129, expected at most 128"),
        ({"q": q.cpu()}, "q is not on the GPU"),
    ):
        with pytest.raises(RuntimeError, match=words):
            call(**changed)
