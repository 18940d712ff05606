# SPDX-License-Identifier: Apache-2.0
"""Gathering sequences from paged caches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from float8 import E4M3
from hypothesis import given
from hypothesis import strategies as st

FP8 = {"fp8_e4m3": E4M3, "fp8_e5m2": torch.float8_e5m2}


def ints(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


@given(
    lengths=st.lists(st.integers(0, 30), min_size=0, max_size=5),
    starts=st.one_of(st.none(), st.lists(st.integers(0, 20), min_size=5, max_size=5)),
    block_size=st.sampled_from([1, 5, 16]),
    entries=st.lists(st.integers(1, 40), min_size=1, max_size=2),
    first=st.integers(0, 2),
    after=st.integers(0, 2),
    form=st.sampled_from(["auto", *FP8]),
    cut=st.integers(0, 4),
)
def test_gather(
    cache_ops: Any,
    check: Any,
    dtype: torch.dtype,
    *,
    lengths: list[int],
    starts: list[int] | None,
    block_size: int,
    entries: list[int],
    first: int,
    after: int,
    form: str,
    cut: int,
) -> None:
    starts = starts[: len(lengths)] if starts else None
    columns = 51 // block_size + 1
    table = (
        torch.stack([torch.randperm(columns + 3)[:columns] for _ in lengths]).int()
        if lengths
        else torch.zeros(0, 1).int()
    )
    values = torch.randn(columns + 3, block_size, *entries)
    cache = values.to(dtype) if form == "auto" else values.to(FP8[form]).view(torch.uint8)
    ends = torch.tensor([0, *lengths]).cumsum(0).int() + first
    rows = int(ends[-1]) + after
    dst = torch.randn(rows, *entries).to(dtype)
    scale = torch.rand(1) + 0.5
    exact = cache.double() if form == "auto" else cache.view(FP8[form]).double() * scale.double()
    want, row = dst.double(), first
    for sequence, length in enumerate(lengths):
        for position in range(length):
            at = position + (starts[sequence] if starts else 0)
            want[row] = exact[table[sequence, at // block_size], at % block_size]
            row += 1
    limit = max(0, rows - cut)
    whole, part = dst.clone(), dst.clone()
    where = None if starts is None else ints(starts)
    token_to_seq = torch.zeros(rows, dtype=torch.int32)
    cache_ops.gather_and_maybe_dequant_cache(
        cache, part, table, ends, token_to_seq, limit, form, scale, where
    )
    check(part[:limit], want[:limit])
    assert torch.equal(part[limit:], dst[limit:])
    if form == "auto":
        cache_ops.cp_gather_cache(cache, whole, table, ends, len(lengths), where)
        assert torch.equal(whole.double(), want)


def test_gather_into_and_from_slices(cache_ops: Any, dtype: torch.dtype) -> None:
    cache, dst = torch.randn(3, 4, 10).to(dtype)[..., 2:8], torch.zeros(4, 9, dtype=dtype)[:, 1:7]
    cache_ops.cp_gather_cache(cache, dst, ints([[2, 0]]), ints([0, 4]), 1, ints([3]))
    assert torch.equal(dst, torch.cat((cache[2, 3:], cache[0, :3])))


def test_gather_of_many_tokens(cache_ops: Any) -> None:
    cache = torch.randn(600, 16, 64)
    table = torch.randperm(600)[:512].view(4, 128).int()
    ends = ints([0, 1000, 1000, 3000, 5000])
    dst = torch.zeros(5000, 64)
    cache_ops.cp_gather_cache(cache, dst, table, ends, 4, None)
    flat = cache[table.long()].view(4, 2048, 64)
    assert torch.equal(dst, torch.cat((flat[0, :1000], flat[2, :2000], flat[3, :2000])))


def gather(cache_ops: Any, **changes: Any) -> None:
    arguments = {
        "src_cache": torch.zeros(3, 4, 5),
        "dst": torch.zeros(7, 5),
        "block_table": ints([[2, 1], [0, 1]]),
        "cu_seq_lens": ints([0, 2, 7]),
        "token_to_seq": ints([0] * 7),
        "num_tokens": 7,
        "kv_cache_dtype": "auto",
        "scale": torch.ones(1),
        "seq_starts": None,
    }
    cache_ops.gather_and_maybe_dequant_cache(**(arguments | changes))


BAD = {
    "block too large": (
        {"block_table": ints([[2, 1], [0, 3]])},
        r"block_table holds 3 at \[1, 1\], expected 0 <= block < 3",
    ),
    "block negative": (
        {"block_table": ints([[-1, 1], [0, 1]])},
        r"block_table holds -1 at \[0, 0\]",
    ),
    "too few columns": (
        {"block_table": ints([[2], [0]])},
        r"block_table has shape \[2, 1\], expected a block for position 4 of sequence 1",
    ),
    "start beyond": (
        {"seq_starts": ints([7, 0])},
        r"block_table has shape \[2, 2\], expected a block for position 8 of sequence 0",
    ),
    "start negative": (
        {"seq_starts": ints([0, -1])},
        "seq_starts holds -1 for sequence 1, expected at least 0",
    ),
    "lengths decrease": (
        {"cu_seq_lens": ints([0, 3, 2])},
        "cu_seq_lens holds 3 and 2 for sequence 1",
    ),
    "lengths negative": (
        {"cu_seq_lens": ints([-1, 3, 7])},
        "cu_seq_lens holds -1 and 3 for sequence 0",
    ),
    "long lengths": (
        {"cu_seq_lens": torch.tensor([0, 2, 7])},
        "cu_seq_lens is of dtype Long, expected Int",
    ),
    "one sequence too many": (
        {"cu_seq_lens": ints([0, 2, 7, 7])},
        r"block_table has shape \[2, 2\], expected \[3, blocks",
    ),
    "no lengths": ({"cu_seq_lens": ints([])}, r"cu_seq_lens has shape \[0\]"),
    "starts of one": ({"seq_starts": ints([0])}, r"seq_starts has shape \[1\], expected \[2\]"),
    "too many tokens": ({"num_tokens": 8}, "num_tokens is 8, expected 0 <= num_tokens <= 7"),
    "negative tokens": ({"num_tokens": -1}, "num_tokens is -1"),
    "dst of other width": (
        {"dst": torch.zeros(7, 6)},
        r"dst has shape \[7, 6\], expected \[7, 5\]",
    ),
    "dst of other dtype": (
        {"dst": torch.zeros(7, 5).half()},
        "src_cache is of dtype Float, expected Half, the dtype of dst",
    ),
    "dst over itself": ({"dst": torch.zeros(1, 5).expand(7, 5)}, "dst has strides"),
    "dst in columns": (
        {"dst": torch.zeros(5, 7).t()},
        r"dst has strides \[1, 7\], expected adjacent entries of each token",
    ),
    "short token_to_seq": (
        {"token_to_seq": ints([0])},
        r"token_to_seq has shape \[1\], expected one dimension of at least 7",
    ),
    "cache of two dimensions": ({"src_cache": torch.zeros(3, 4)}, r"src_cache has shape \[3, 4\]"),
    "blocks of nothing": (
        {"src_cache": torch.zeros(3, 0, 5)},
        r"src_cache has shape \[3, 0, 5\], expected .* block_size of at least 1",
    ),
    "cache in columns": (
        {"src_cache": torch.zeros(3, 5, 4).transpose(1, 2)},
        r"src_cache has strides",
    ),
    "scales": ({"scale": torch.ones(2)}, r"scale has shape \[2\], expected one element"),
}


#: Cases of BAD that are about the contents of a tensor.
CONTENTS = {
    "block too large",
    "block negative",
    "too few columns",
    "start beyond",
    "start negative",
    "lengths decrease",
    "lengths negative",
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.contents) if case in CONTENTS else case for case in BAD],
)
def test_bad_gathers(cache_ops: Any, case: str) -> None:
    changes, message = BAD[case]
    dst = torch.zeros(7, 5)
    with pytest.raises(RuntimeError, match=f"^gather_and_maybe_dequant_cache: {message}"):
        gather(cache_ops, **({"dst": dst, "src_cache": torch.ones(3, 4, 5)} | changes))
    assert not dst.any()


@pytest.mark.contents
def test_ends_beyond_dst(cache_ops: Any) -> None:
    with pytest.raises(
        RuntimeError,
        match=r"^cp_gather_cache: cu_seq_lens holds 0 and 4 for sequence 0, .* to 3 \(the tokens "
        r"of dst\)",
    ):
        cache_ops.cp_gather_cache(
            torch.zeros(3, 4, 5), torch.zeros(3, 5), ints([[0]]), ints([0, 4]), 1, None
        )


def test_a_negative_batch(cache_ops: Any) -> None:
    with pytest.raises(RuntimeError, match=r"^cp_gather_cache: batch_size is -1"):
        cache_ops.cp_gather_cache(
            torch.zeros(3, 4, 5), torch.zeros(3, 5), ints([[0]]), ints([0, 3]), -1, None
        )
