# SPDX-License-Identifier: Apache-2.0
"""Decode of multi-head latent attention, against a plain softmax in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from attention_batches import compare
from hypothesis import given
from hypothesis import strategies as st


def run(
    ops: Any,
    lengths: list[int],
    heads: int,
    sizes: tuple[int, int],
    block_size: int,
    dtype: torch.dtype,
) -> None:
    head_size, value_size = sizes
    scale = head_size**-0.5
    query = torch.randn(len(lengths), heads, head_size).to(dtype)
    rows = [torch.randn(length, head_size).to(dtype) for length in lengths]
    needed = [-(-length // block_size) for length in lengths]
    # Memory without a token is NaN; unused table entries are not valid blocks.
    cache = torch.full((sum(needed) + 1, block_size, head_size), math.nan, dtype=dtype)
    tables = torch.full((len(lengths), max(needed) + 1), -1, dtype=torch.int32)
    order = torch.randperm(sum(needed) + 1, dtype=torch.int32)
    for i, count in enumerate(needed):
        tables[i, :count], order = order[:count], order[count:]
        for token, row in enumerate(rows[i]):
            cache[tables[i, token // block_size], token % block_size] = row
    out = torch.full((len(lengths), heads, value_size), math.nan, dtype=dtype)
    ops.mla_decode_kvcache(
        out, query, cache, scale, tables, torch.tensor(lengths, dtype=torch.int32)
    )
    want = torch.zeros(out.shape, dtype=torch.float64)
    for i, latent in enumerate(rows):
        weights = (query[i].double() @ latent.double().t() * scale).softmax(-1)
        want[i] = weights @ latent[:, :value_size].double()
    compare(out, want)


@pytest.mark.parametrize("heads", [1, 5, 16, 128])
@pytest.mark.parametrize("lengths", [[1], [40, 7, 0, 131], [900]], ids=str)
def test_decode(ops: Any, dtype: torch.dtype, heads: int, lengths: list[int]) -> None:
    run(ops, lengths, heads, (576, 512), 16, dtype)


@given(
    lengths=st.lists(st.integers(0, 150), min_size=1, max_size=3),
    heads=st.integers(1, 70),
    sizes=st.integers(1, 90).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))),
    block_size=st.integers(1, 40),
)
def test_any_shape(
    ops: Any,
    *,
    dtype: torch.dtype,
    lengths: list[int],
    heads: int,
    sizes: tuple[int, int],
    block_size: int,
) -> None:
    run(ops, lengths, heads, sizes, block_size, dtype)


def test_no_request(ops: Any, dtype: torch.dtype) -> None:
    out = torch.empty(0, 4, 512, dtype=dtype)
    none = torch.empty(0, 1, dtype=torch.int32)
    ops.mla_decode_kvcache(
        out,
        torch.empty(0, 4, 576, dtype=dtype),
        torch.empty(2, 16, 576, dtype=dtype),
        1.0,
        none,
        none[:, 0],
    )


BAD = {
    "block that is none": (
        {"block_tables": torch.tensor([[0, 1], [3, 2]], dtype=torch.int32)},
        "block_tables holds 3 for block 0 of request 1",
    ),
    "short table": (
        {"block_tables": torch.zeros(2, 1, dtype=torch.int32)},
        r"block_tables has shape \[2, 1\], expected at least 2 blocks",
    ),
    "few rows": (
        {"block_tables": torch.zeros(1, 2, dtype=torch.int32)},
        r"block_tables has shape \[1, 2\]",
    ),
    "negative length": (
        {"seq_lens": torch.tensor([1, -1], dtype=torch.int32)},
        "seq_lens holds -1 for sequence 1",
    ),
    "lengths of int64": (
        {"seq_lens": torch.tensor([1, 1])},
        "seq_lens is of dtype Long, expected Int",
    ),
    "cache of other width": (
        {"kv_cache": torch.zeros(3, 4, 20)},
        r"kv_cache has shape \[3, 4, 20\], expected \[num_blocks, block_size, 24\]",
    ),
    "cache of other dtype": (
        {"kv_cache": torch.zeros(3, 4, 24).half()},
        "kv_cache is of dtype Half, expected Float",
    ),
    "value wider than the key": ({"out": torch.zeros(2, 3, 25)}, r"out has shape \[2, 3, 25\]"),
    "other heads": ({"out": torch.zeros(2, 2, 16)}, r"out has shape \[2, 2, 16\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(ops: Any, name: str) -> None:
    changed, message = BAD[name]
    arguments = {
        "out": torch.full((2, 3, 16), 7.0),
        "query": torch.randn(2, 3, 24),
        "kv_cache": torch.randn(3, 4, 24),
        "scale": 1.0,
        "block_tables": torch.tensor([[0, 1], [2, 2]], dtype=torch.int32),
        "seq_lens": torch.tensor([8, 5], dtype=torch.int32),
    }
    with pytest.raises(RuntimeError, match=f"^mla_decode_kvcache: .*{message}"):
        ops.mla_decode_kvcache(**(arguments | changed))
    assert bool((arguments["out"] == 7.0).all())
