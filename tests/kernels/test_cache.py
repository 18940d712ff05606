# SPDX-License-Identifier: Apache-2.0
"""Writing tokens into paged caches. References index slot by slot, as the layouts are defined."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from float8 import E4M3
from hypothesis import given
from hypothesis import strategies as st

FP8 = {"fp8": E4M3, "fp8_e4m3": E4M3, "fp8_e5m2": torch.float8_e5m2}
FORMATS = ["auto", "fp8", "fp8_e5m2"]


def slots_for(tokens: int, slots: int, kind: str) -> torch.Tensor:
    """Distinct slots of a batch; some are padding."""
    if kind == "prefill":
        start = int(torch.randint(0, slots - tokens + 1, ()))
        chosen = torch.arange(start, start + tokens)
    else:
        chosen = torch.randperm(slots)[:tokens]
    chosen[torch.rand(tokens) < 0.1] = -1
    return chosen


def memory(shape: tuple[int, ...], dtype: torch.dtype, form: str) -> torch.Tensor:
    """A cache with random contents, to check that the rest stays unchanged."""
    if form == "auto":
        return torch.randn(shape).to(dtype)
    return torch.randint(0, 100, shape, dtype=torch.uint8)


def stored(x: torch.Tensor, form: str, scale: torch.Tensor) -> torch.Tensor:
    """Tokens in the format of the cache.

    torch rounds to nearest, ties to even. It saturates only in float8_e4m3fn, and only because of
    the clamp.
    """
    if form == "auto":
        return x
    kind = FP8[form]
    most = torch.finfo(kind).max
    return (x.float() / scale.view(-1, 1)).clamp(-most, most).to(kind).view(torch.uint8)


def strided_tokens(
    tokens: int, heads: int, width: int, dtype: torch.dtype, pad: int
) -> torch.Tensor:
    """Tokens in a wider tensor, like slices of a joint projection of query, key and value."""
    return (torch.randn(tokens, heads + 1, width + pad) * 3).to(dtype)[:, 1:, :width]


@given(
    tokens=st.integers(0, 40),
    heads=st.integers(1, 3),
    width=st.one_of(st.integers(1, 70), st.sampled_from([64, 128])),
    block_size=st.sampled_from([1, 8, 16, 5]),
    pads=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    kind=st.sampled_from(["prefill", "scattered"]),
    form=st.sampled_from(FORMATS),
    layout=st.sampled_from(["nhd", "hnd"]),
    per_head=st.booleans(),
    extra=st.integers(0, 2),
)
def test_flash(
    cache_ops: Any,
    dtype: torch.dtype,
    *,
    tokens: int,
    heads: int,
    width: int,
    block_size: int,
    pads: tuple[int, int],
    kind: str,
    form: str,
    layout: str,
    per_head: bool,
    extra: int,
) -> None:
    blocks = 45 // block_size + 2
    shape = (
        (blocks, block_size, heads, width)
        if layout == "nhd"
        else (blocks, heads, block_size, width)
    )
    caches = [memory((2, *shape), dtype, form)[i] for i in range(2)]
    if layout == "hnd":
        caches = [cache.transpose(1, 2) for cache in caches]
    key, value = (strided_tokens(tokens + extra, heads, width, dtype, pad) for pad in pads)
    slots = slots_for(tokens, blocks * block_size, kind)
    scales = [torch.rand(heads if per_head else 1) + 0.5 for _ in range(2)]
    want = [cache.clone() for cache in caches]
    for cache, x, scale in zip(want, (key, value), scales, strict=True):
        rows = stored(x, form, scale)
        for token, slot in enumerate(slots.tolist()):
            if slot >= 0:
                cache[slot // block_size, slot % block_size] = rows[token]
    cache_ops.reshape_and_cache_flash(key, value, *caches, slots, form, *scales)
    for got, expected in zip(caches, want, strict=True):
        assert torch.equal(got, expected)


@given(
    tokens=st.integers(0, 70),
    heads=st.integers(1, 3),
    chunks=st.integers(1, 17),
    x=st.sampled_from([1, 2, 4, 8, 16]),
    block_size=st.sampled_from([16, 32, 48]),
    pads=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    kind=st.sampled_from(["prefill", "scattered"]),
    form=st.sampled_from(FORMATS),
    interleaved=st.booleans(),
)
def test_chunks(
    cache_ops: Any,
    dtype: torch.dtype,
    *,
    tokens: int,
    heads: int,
    chunks: int,
    x: int,
    block_size: int,
    pads: tuple[int, int],
    kind: str,
    form: str,
    interleaved: bool,
) -> None:
    width, blocks = chunks * x, 80 // block_size + 1
    value_shape = (
        (blocks, heads, block_size // x, width, x)
        if interleaved
        else (blocks, heads, width, block_size)
    )
    key_cache, value_cache = (
        memory((blocks, heads, chunks, block_size, x), dtype, form),
        memory(value_shape, dtype, form),
    )
    key, value = (strided_tokens(tokens, heads, width, dtype, pad) for pad in pads)
    slots = slots_for(tokens, blocks * block_size, kind)
    scales = [torch.rand(1) + 0.5, torch.rand(1) + 0.5]
    want_key, want_value = key_cache.clone(), value_cache.clone()
    keys, values = stored(key, form, scales[0]), stored(value, form, scales[1])
    for token, slot in enumerate(slots.tolist()):
        block, offset = slot // block_size, slot % block_size
        if slot < 0:
            continue
        want_key[block, :, :, offset] = keys[token].unflatten(-1, (chunks, x))
        if interleaved:
            want_value[block, :, offset // x, :, offset % x] = values[token]
        else:
            want_value[block, :, :, offset] = values[token]
    cache_ops.reshape_and_cache(
        key, value, key_cache, value_cache, slots, form, *scales, interleaved
    )
    assert torch.equal(key_cache, want_key)
    assert torch.equal(value_cache, want_value)


@given(
    tokens=st.integers(0, 30),
    rank=st.one_of(st.integers(1, 70), st.just(512)),
    pe=st.one_of(st.integers(1, 70), st.just(64)),
    block_size=st.sampled_from([1, 16, 5]),
    form=st.sampled_from(FORMATS),
    skip=st.booleans(),
    pad=st.integers(0, 3),
)
def test_mla(
    cache_ops: Any,
    dtype: torch.dtype,
    *,
    tokens: int,
    rank: int,
    pe: int,
    block_size: int,
    form: str,
    skip: bool,
    pad: int,
) -> None:
    blocks = 40 // block_size + 1
    cache = memory((blocks, block_size, rank + pe + pad), dtype, form)[..., : rank + pe]
    both = (torch.randn(tokens, rank + pe + pad) * 3).to(dtype)
    kv_c, k_pe = both[:, :rank], both[:, rank : rank + pe]
    slots, scale = slots_for(tokens, blocks * block_size, "scattered"), torch.rand(1) + 0.5
    want = cache.clone()
    rows = stored(both[:, : rank + pe], form, torch.ones(1) if skip else scale)
    for token, slot in enumerate(slots.tolist()):
        if slot >= 0:
            want[slot // block_size, slot % block_size] = rows[token]
    cache_ops.concat_and_cache_mla(kv_c, k_pe, cache, slots, form, scale, skip)
    assert torch.equal(cache, want)


@pytest.mark.parametrize(("form", "kind"), FP8.items())
def test_fp8_caches_may_have_torchs_dtype(cache_ops: Any, form: str, kind: torch.dtype) -> None:
    key, value = torch.randn(3, 2, 8), torch.full((3, 2, 8), 1e9)
    caches = [torch.zeros(2, 4, 2, 8, dtype=torch.uint8).view(kind) for _ in range(2)]
    cache_ops.reshape_and_cache_flash(
        key, value, *caches, torch.arange(3), form, torch.tensor(2.0), torch.tensor(1.0)
    )
    assert torch.equal(caches[0].view(torch.uint8)[0, :3], stored(key, form, torch.tensor(2.0)))
    assert (caches[1][0, :3].float() == torch.finfo(kind).max).all(), "too large numbers saturate"


def test_threads_do_not_change_the_result(cache_ops: Any, dtype: torch.dtype) -> None:
    key, value, slots = (
        torch.randn(700, 8, 64).to(dtype),
        torch.randn(700, 8, 64).to(dtype),
        torch.randperm(1024)[:700],
    )
    scale, threads = torch.ones(1), torch.get_num_threads()
    results = []
    for count in (threads, 1):
        caches = [
            torch.zeros(64, 8, 8, 16, 8, dtype=dtype),
            torch.zeros(64, 8, 64, 16, dtype=dtype),
        ]
        torch.set_num_threads(count)
        try:
            cache_ops.reshape_and_cache(key, value, *caches, slots, "auto", scale, scale)
        finally:
            torch.set_num_threads(threads)
        results.append(caches)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert torch.equal(results[0][1][slots[5] // 16, :, :, slots[5] % 16], value[5])
