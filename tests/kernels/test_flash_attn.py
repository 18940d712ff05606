# SPDX-License-Identifier: Apache-2.0
"""FlashAttention 2 and 3 against attention in float64.

Needs a GPU and the libraries: `make gpu-tests`.

Which kernels a library has is a choice of its build (VLLM_FA_SET): a test whose kernel it lacks is
skipped with the library's own words; ``test_what_every_set_has`` fails where even the smallest
choice is missing.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pytest
import torch

from vllm import vllm_flash_attn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

pytestmark = pytest.mark.gpu

#: Its kernels load whole blocks out of large pages and of caches in one piece: zero times what lies
#: behind the last key has to be zero. Version 2 reads keys alone.
HOPPER = 3
#: Relative error of rounding weights and results.
EPSILON = {torch.bfloat16: 2**-8, torch.float16: 2**-11}
#: Relative error of the hardware's tangent, which caps are made with.
TANH = 2**-10


@pytest.fixture(params=list(EPSILON), ids=["bfloat16", "float16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    chosen: torch.dtype = request.param
    return chosen


@pytest.fixture(params=[2, HOPPER], ids=["version 2", "version 3"])
def version(request: pytest.FixtureRequest) -> int:
    chosen: int = request.param
    reason = vllm_flash_attn.fa_version_unsupported_reason(chosen)
    if reason is not None:
        pytest.skip(reason)
    return chosen


def attend(
    function: Callable[..., Any], *arguments: Any, **given: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Result and sums of a call whose kernel is compiled."""
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
    """Which keys a query sees, and what is done to scores."""

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
            return  # a causal kernel adds its bias from the first key on, which shifts every score of a query alike
        torch.testing.assert_close(
            lse.double(), want_lse, rtol=1e-4, atol=1e-3 + self.softcap * TANH
        )


def starts(lengths: Sequence[int]) -> torch.Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)


def paged(
    version: int, keys: Sequence[int], page: int, shape: tuple[int, int], dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Caches of sequences in shuffled pages, and the table, which names no page behind the last one; what is no key is NaN, or 1000."""
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
#: Version 3 takes no slopes.
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


@pytest.mark.parametrize("size", [64, 128, 40, 120])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize(("version", "name"), CASES, indirect=["version"])
def test_packed(
    version: int, size: int, heads: tuple[int, int], name: str, dtype: torch.dtype
) -> None:
    queries, keys = [1, 5, 130, 64, 33], [7, 5, 300, 64, 129]
    q = torch.randn(sum(queries), heads[0], size).to(dtype)
    k, v = (torch.randn(sum(keys), heads[1], size).to(dtype) for _ in range(2))
    how, begin, first = mask(name, heads[0]), starts(queries), starts(keys)
    call = vllm_flash_attn.flash_attn_varlen_func
    got, lse = attend(
        call, q, k, v, max(queries), begin, max(keys), first, fa_version=version, **how.arguments()
    )
    for row in range(len(queries)):
        mine, theirs = slice(begin[row], begin[row + 1]), slice(first[row], first[row + 1])
        how.check(version, got[mine], lse[:, mine], q[mine], k[theirs], v[theirs])


@pytest.mark.parametrize("page", [16, 48, 256])
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize(("version", "name"), CASES, indirect=["version"])
def test_paged(
    version: int, page: int, size: int, heads: tuple[int, int], name: str, dtype: torch.dtype
) -> None:
    queries, keys = [1, 17, 3, 100, 1], [1, 17, 500, 777, 0]
    q = torch.randn(sum(queries), heads[0], size).to(dtype)
    k, v, table = paged(version, keys, page, (heads[1], size), dtype)
    how, begin = mask(name, heads[0]), starts(queries)
    got, lse = attend(
        vllm_flash_attn.flash_attn_varlen_func,
        *(q, k, v, max(queries), begin, max(keys)),
        seqused_k=torch.tensor(keys, dtype=torch.int32),
        block_table=table,
        fa_version=version,
        **how.arguments(),
    )
    for row, length in enumerate(keys):
        mine = slice(begin[row], begin[row + 1])
        how.check(
            version,
            got[mine],
            lse[:, mine],
            q[mine],
            of_sequence(k, table, row, length),
            of_sequence(v, table, row, length),
        )


@pytest.mark.parametrize("splits", [0, 1, 3, 128])
@pytest.mark.parametrize("page", [16, 256])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize(
    ("version", "name"),
    [case for case in CASES if case[1] not in ("all", "both sides")],
    indirect=["version"],
)
def test_decode(
    version: int, splits: int, page: int, heads: tuple[int, int], name: str, dtype: torch.dtype
) -> None:
    keys, size = [1, 4000, 0, 2049, 255], 128
    q = torch.randn(len(keys), heads[0], size).to(dtype)
    k, v, table = paged(version, keys, page, (heads[1], size), dtype)
    how, out = mask(name, heads[0]), torch.empty_like(q)
    got, lse = attend(
        vllm_flash_attn.flash_attn_varlen_func,
        *(q, k, v, 1, starts([1] * len(keys)), max(keys)),
        seqused_k=torch.tensor(keys, dtype=torch.int32),
        block_table=table,
        num_splits=splits,
        fa_version=version,
        out=out,
        **how.arguments(),
    )
    assert got.data_ptr() == out.data_ptr()
    for row, length in enumerate(keys):
        mine = slice(row, row + 1)
        how.check(
            version,
            got[mine],
            lse[:, mine],
            q[mine],
            of_sequence(k, table, row, length),
            of_sequence(v, table, row, length),
        )


def test_one_split_is_the_same_in_every_batch(version: int, dtype: torch.dtype) -> None:
    keys, size = [1000, 3000], 64
    q = torch.randn(2, 8, size).to(dtype)
    k, v, table = paged(version, keys, 16, (2, size), dtype)
    lengths = torch.tensor(keys, dtype=torch.int32)

    def run(rows: slice) -> torch.Tensor:
        count = len(keys[rows])
        given = {
            "seqused_k": lengths[rows],
            "block_table": table[rows],
            "num_splits": 1,
            "fa_version": version,
        }
        return attend(
            vllm_flash_attn.flash_attn_varlen_func,
            q[rows],
            k,
            v,
            1,
            starts([1] * count),
            4000,
            **given,
        )[0]

    assert torch.equal(run(slice(0, 2))[1:], run(slice(1, 2)))


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize(("version", "name"), CASES, indirect=["version"])
def test_caches(
    version: int, heads: tuple[int, int], queries: int, name: str, dtype: torch.dtype
) -> None:
    keys, size = [200, 3, 77], 64
    q = torch.randn(3, queries, heads[0], size).to(dtype)
    k, v = (torch.randn(3, 256, heads[1], size).to(dtype) for _ in range(2))
    how = mask(name, heads[0])
    lengths = torch.tensor(keys, dtype=torch.int32)
    got, lse = attend(
        vllm_flash_attn.flash_attn_with_kvcache,
        q,
        k,
        v,
        cache_seqlens=lengths,
        fa_version=version,
        **how.arguments(),
    )
    for row, length in enumerate(keys):
        how.check(version, got[row], lse[row], q[row], k[row, :length], v[row, :length])


@pytest.mark.parametrize("layout", ["one piece", "pages"])
def test_appending(version: int, layout: str, dtype: torch.dtype) -> None:
    keys, size, new = [200, 3], 128, 5
    q = torch.randn(2, new, 4, size).to(dtype)
    fresh = [torch.randn(2, new, 2, size).to(dtype) for _ in range(2)]
    table = torch.tensor([[2, 0], [1, 3]], dtype=torch.int32) if layout == "pages" else None
    shape = (2, 256, 2, size) if table is None else (4, 128, 2, size)
    caches = [torch.randn(*shape).to(dtype) for _ in range(2)]
    before = [cache.clone() for cache in caches]
    lengths = torch.tensor(keys, dtype=torch.int32)
    given = {"cache_seqlens": lengths, "block_table": table, "causal": True, "fa_version": version}
    got, lse = attend(vllm_flash_attn.flash_attn_with_kvcache, q, *caches, *fresh, **given)
    for row, length in enumerate(keys):
        whole = [
            cache[table[row].long()].flatten(0, 1) if table is not None else cache[row]
            for cache in (*before, *caches)
        ]
        want = [
            torch.cat([old[:length], added[row], old[length + new :]])
            for old, added in zip(whole[:2], fresh, strict=True)
        ]
        assert all(torch.equal(now, then) for now, then in zip(whole[2:], want, strict=True))
        Mask(causal=True).check(
            version, got[row], lse[row], q[row], want[0][: length + new], want[1][: length + new]
        )


@pytest.mark.parametrize("interleaved", ["interleaved", "halves"])
def test_rotating(version: int, interleaved: str, dtype: torch.dtype) -> None:
    keys, size, rotated, new = [40, 7], 64, 32, 3
    q, k, v = (torch.randn(2, new, heads, size).to(dtype) for heads in (4, 2, 2))
    caches = [torch.randn(2, 128, 2, size).to(dtype) for _ in range(2)]
    before = [cache.clone() for cache in caches]
    angles = torch.rand(128, rotated // 2) * 6
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)

    def turn(x: torch.Tensor, place: int) -> torch.Tensor:
        pairs = x[..., :rotated].double()
        a, b = (
            (pairs[..., 0::2], pairs[..., 1::2])
            if interleaved == "interleaved"
            else pairs.chunk(2, dim=-1)
        )
        c, s = (t[place : place + new, None].double() for t in (cos, sin))
        turned = (a * c - b * s, a * s + b * c)
        joined = (
            torch.stack(turned, dim=-1).flatten(-2)
            if interleaved == "interleaved"
            else torch.cat(turned, dim=-1)
        )
        return torch.cat([joined.to(dtype), x[..., rotated:]], dim=-1)

    got, lse = attend(
        vllm_flash_attn.flash_attn_with_kvcache,
        *(q, *caches, k, v, cos, sin, torch.tensor(keys, dtype=torch.int32)),
        causal=True,
        rotary_interleaved=interleaved == "interleaved",
        fa_version=version,
    )
    for row, length in enumerate(keys):
        end = length + new
        torch.testing.assert_close(
            caches[0][row, length:end],
            turn(k[row], length),
            rtol=EPSILON[dtype],
            atol=EPSILON[dtype],
        )
        whole = torch.cat([before[0][row, :length], caches[0][row, length:end]])
        Mask(causal=True).check(
            version,
            got[row],
            lse[row],
            turn(q[row], length),
            whole,
            torch.cat([before[1][row, :length], v[row]]),
        )


def test_nothing_to_do(version: int, dtype: torch.dtype) -> None:
    k = torch.randn(4, 16, 2, 64).to(dtype)
    given = {
        "seqused_k": torch.zeros(2, dtype=torch.int32),
        "block_table": torch.zeros(2, 1, dtype=torch.int32),
        "fa_version": version,
    }
    none = torch.empty(0, 4, 64, dtype=dtype)
    got, lse = attend(
        vllm_flash_attn.flash_attn_varlen_func, none, k, k, 0, starts([0, 0]), 0, **given
    )
    assert (got.shape, lse.shape) == ((0, 4, 64), (4, 0))
    ones = torch.ones(2, 4, 64).to(dtype)
    got, lse = attend(
        vllm_flash_attn.flash_attn_varlen_func, ones, k, k, 1, starts([1, 1]), 0, **given
    )
    assert not got.any()
    assert (lse == (-math.inf if version == HOPPER else math.inf)).all()


def test_what_every_set_has(version: int) -> None:
    """Also VLLM_FA_SET=check: heads of 64 in bfloat16, in version 2 over keys in one piece, in version 3 over pages."""
    queries, keys = [5, 70], [40, 300]
    q = torch.randn(sum(queries), 8, 64).bfloat16()
    begin, first = starts(queries), starts(keys)
    if version == HOPPER:
        k, v, table = paged(version, keys, 16, (2, 64), torch.bfloat16)
        where: dict[str, Any] = {
            "seqused_k": torch.tensor(keys, dtype=torch.int32),
            "block_table": table,
        }
        each = [
            [of_sequence(cache, table, row, length) for row, length in enumerate(keys)]
            for cache in (k, v)
        ]
    else:
        k, v = (torch.randn(sum(keys), 2, 64).bfloat16() for _ in range(2))
        where = {"cu_seqlens_k": first}
        each = [
            [cache[first[row] : first[row + 1]] for row in range(len(keys))] for cache in (k, v)
        ]
    got, lse = vllm_flash_attn.flash_attn_varlen_func(
        q,
        k,
        v,
        max(queries),
        begin,
        max(keys),
        return_softmax_lse=True,
        fa_version=version,
        **where,
    )
    for row in range(len(keys)):
        mine = slice(begin[row], begin[row + 1])
        Mask().check(version, got[mine], lse[:, mine], q[mine], each[0][row], each[1][row])


@pytest.mark.parametrize("version", [HOPPER], indirect=True)
@pytest.mark.parametrize("queries", [[1, 1, 1], [1, 17, 300]])
@pytest.mark.parametrize("page", [16, 256])
@pytest.mark.parametrize("name", ["all", "causal", "window"])
def test_dividing_ahead(
    version: int, name: str, page: int, queries: list[int], dtype: torch.dtype
) -> None:
    """What is divided once serves many calls, and changes nothing."""
    keys, heads, size = [5, 900, 2000], (8, 2), 128
    q = torch.randn(sum(queries), heads[0], size).to(dtype)
    k, v, table = paged(version, keys, page, (heads[1], size), dtype)
    how, begin, lengths = (
        mask(name, heads[0]),
        starts(queries),
        torch.tensor(keys, dtype=torch.int32),
    )
    numbers = vllm_flash_attn.get_scheduler_metadata(
        *(len(keys), max(queries), max(keys), *heads, size, lengths),
        qkv_dtype=dtype,
        cu_seqlens_q=begin,
        page_size=page,
        causal=how.causal,
        window_size=how.window,
        num_splits=1,
    )
    call, before = vllm_flash_attn.flash_attn_varlen_func, numbers.clone()
    given = {
        "seqused_k": lengths,
        "block_table": table,
        "num_splits": 1,
        "fa_version": version,
        **how.arguments(),
    }
    without = attend(call, q, k, v, max(queries), begin, max(keys), **given)
    for _ in range(3):
        with_it = attend(
            call, q, k, v, max(queries), begin, max(keys), scheduler_metadata=numbers, **given
        )
        assert all(torch.equal(one, other) for one, other in zip(with_it, without, strict=True))
    assert torch.equal(numbers, before)
    for row, length in enumerate(keys):
        mine = slice(begin[row], begin[row + 1])
        each = (of_sequence(cache, table, row, length) for cache in (k, v))
        how.check(version, without[0][mine], without[1][:, mine], q[mine], *each)


@pytest.mark.parametrize("version", [HOPPER], indirect=True)
def test_more_sequences_than_a_block_divides(version: int) -> None:
    keys = [1 + row % 40 for row in range(1100)]
    q = torch.randn(len(keys), 4, 64).bfloat16()
    k, v, table = paged(version, keys, 16, (2, 64), torch.bfloat16)
    lengths = torch.tensor(keys, dtype=torch.int32)
    got, lse = attend(
        vllm_flash_attn.flash_attn_varlen_func,
        *(q, k, v, 1, starts([1] * len(keys)), max(keys)),
        seqused_k=lengths,
        block_table=table,
        fa_version=version,
    )
    for row in (0, 1, 39, 500, 990, 991, 992, 993, 1099):
        each = (of_sequence(cache, table, row, keys[row]) for cache in (k, v))
        Mask().check(version, got[row : row + 1], lse[:, row : row + 1], q[row : row + 1], *each)
