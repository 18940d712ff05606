# SPDX-License-Identifier: Apache-2.0
"""Writing tokens into paged caches. References index slot by slot, as the layouts are defined."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("KERNEL_TEST_EXAMPLES", "50"))
FP8 = {"fp8": torch.float8_e4m3fn, "fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}
FORMATS = ["auto", "fp8", "fp8_e5m2"]


@pytest.fixture(scope="session")
def cache_ops(ops: Any) -> Any:
    assert ops is not None
    return torch.ops._C_cache_ops


def slots_for(tokens: int, slots: int, kind: str) -> torch.Tensor:
    """Slots of a batch: all different, some of them padding."""
    if kind == "prefill":
        start = int(torch.randint(0, slots - tokens + 1, ()))
        chosen = torch.arange(start, start + tokens)
    else:
        chosen = torch.randperm(slots)[:tokens]
    chosen[torch.rand(tokens) < 0.1] = -1
    return chosen


def memory(shape: tuple[int, ...], dtype: torch.dtype, form: str) -> torch.Tensor:
    """A cache that is not empty: what is not written has to stay."""
    if form == "auto":
        return torch.randn(shape).to(dtype)
    return torch.randint(0, 100, shape, dtype=torch.uint8)


def stored(x: torch.Tensor, form: str, scale: torch.Tensor) -> torch.Tensor:
    """Tokens as a cache holds them; torch rounds to nearest even, and saturates only in float8_e4m3fn by way of the clamp."""
    if form == "auto":
        return x
    kind = FP8[form]
    most = torch.finfo(kind).max
    return (x.float() / scale.view(-1, 1)).clamp(-most, most).to(kind).view(torch.uint8)


def strided_tokens(
    tokens: int, heads: int, width: int, dtype: torch.dtype, pad: int
) -> torch.Tensor:
    """Tokens within a wider tensor, as slices of a joint projection of query, key and value are."""
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
@settings(deadline=None, max_examples=EXAMPLES)
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
@settings(deadline=None, max_examples=EXAMPLES)
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
@settings(deadline=None, max_examples=EXAMPLES)
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


def test_many_tokens_use_all_threads_alike(cache_ops: Any, dtype: torch.dtype) -> None:
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


def flash(cache_ops: Any, **changes: Any) -> None:
    arguments = {
        "key": torch.zeros(3, 2, 8),
        "value": torch.zeros(3, 2, 8),
        "key_cache": torch.zeros(4, 16, 2, 8),
        "value_cache": torch.zeros(4, 16, 2, 8),
        "slot_mapping": torch.arange(3),
        "kv_cache_dtype": "auto",
        "k_scale": torch.ones(1),
        "v_scale": torch.ones(1),
    }
    cache_ops.reshape_and_cache_flash(**(arguments | changes))


BYTES = {
    "key_cache": torch.zeros(4, 16, 2, 8).byte(),
    "value_cache": torch.zeros(4, 16, 2, 8).byte(),
}
BAD = {
    "slot too large": (
        {"slot_mapping": torch.tensor([1, 64, 2])},
        "slot_mapping holds 64 for token 1, expected -1 or 0 <= slot < 64",
    ),
    "slot below -1": (
        {"slot_mapping": torch.tensor([1, 2, -2])},
        "slot_mapping holds -2 for token 2",
    ),
    "slot near overflow": (
        {"slot_mapping": torch.tensor([2**63 - 1])},
        "slot_mapping holds 9223372036854775807",
    ),
    "int32 slots": (
        {"slot_mapping": torch.arange(3).int()},
        "slot_mapping is of dtype Int, expected Long",
    ),
    "too many slots": (
        {"slot_mapping": torch.arange(4)},
        r"slot_mapping has shape \[4\], expected one dimension of at most 3",
    ),
    "no such format": (
        {"kv_cache_dtype": "fp8_ds_mla"},
        "kv_cache_dtype is 'fp8_ds_mla', expected auto, .* or fp8_e5m2",
    ),
    "other dtype": (BYTES, "key_cache is of dtype Byte, expected Float, the dtype of key"),
    "not bfloat16": (
        {"kv_cache_dtype": "bfloat16"},
        "key_cache is of dtype Float, expected BFloat16",
    ),
    "fp8 in floats": (
        {"kv_cache_dtype": "fp8"},
        "key_cache is of dtype Float, expected Float8_e4m3fn",
    ),
    "other fp8": (
        {name: tensor.view(torch.float8_e5m2) for name, tensor in BYTES.items()}
        | {"kv_cache_dtype": "fp8"},
        "key_cache is of dtype Float8_e5m2, expected Float8_e4m3fn",
    ),
    "value of other heads": (
        {"value": torch.zeros(3, 1, 8)},
        r"value has shape \[3, 1, 8\], expected \[3, 2, 8\]",
    ),
    "flat key": ({"key": torch.zeros(3, 16)}, r"key has shape \[3, 16\], expected \[num_tokens"),
    "cache of other heads": (
        {"key_cache": torch.zeros(4, 16, 3, 8)},
        r"key_cache has shape .*, expected \[num_blocks, block_size, 2, 8\]",
    ),
    "value cache of other shape": (
        {"value_cache": torch.zeros(4, 8, 2, 8)},
        r"value_cache has shape .*: the shape of key_cache",
    ),
    "cache over itself": (
        {"key_cache": torch.zeros(1, 16, 2, 8).expand(4, 16, 2, 8)},
        "key_cache has strides .*, expected separate memory",
    ),
    "two scales of three": (
        {"k_scale": torch.ones(3)},
        r"k_scale has shape \[3\], expected \[1\] or \[2\]",
    ),
    "double scale": (
        {"v_scale": torch.ones(1).double()},
        "v_scale is of dtype Double, expected Float",
    ),
    "double tokens": (
        {name: torch.zeros(3, 2, 8).double() for name in ("key", "value")}
        | {"key_cache": torch.zeros(4, 16, 2, 8).double()},
        "key has elements of 8 bytes",
    ),
}

#: Those of BAD that say something about what a tensor holds.
CONTENTS = {"slot too large", "slot below -1", "slot near overflow"}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.contents) if case in CONTENTS else case for case in BAD],
)
def test_bad_arguments(cache_ops: Any, case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(RuntimeError, match=f"^reshape_and_cache_flash: {message}"):
        flash(cache_ops, **changes)


@pytest.mark.contents
def test_a_bad_slot_changes_nothing(cache_ops: Any) -> None:
    caches = {"key_cache": torch.randn(4, 16, 2, 8), "value_cache": torch.randn(4, 16, 2, 8)}
    before = {name: tensor.clone() for name, tensor in caches.items()}
    with pytest.raises(RuntimeError, match="slot_mapping holds 64"):
        flash(cache_ops, slot_mapping=torch.tensor([0, 1, 64]), **caches)
    assert all(torch.equal(tensor, before[name]) for name, tensor in caches.items())


def test_x_has_to_divide_an_interleaved_block(cache_ops: Any) -> None:
    caches = torch.zeros(2, 1, 2, 6, 4), torch.zeros(2, 1, 1, 8, 4)
    with pytest.raises(
        RuntimeError,
        match=r"^reshape_and_cache: key_cache has shape .*, expected a block_size that x divides",
    ):
        cache_ops.reshape_and_cache(
            torch.zeros(1, 1, 8),
            torch.zeros(1, 1, 8),
            *caches,
            torch.arange(1),
            "auto",
            *torch.ones(2, 1),
            True,
        )


def test_an_empty_cache_takes_padding(cache_ops: Any) -> None:
    empty = torch.zeros(0, 16, 2, 8)
    flash(cache_ops, key_cache=empty, value_cache=empty, slot_mapping=torch.tensor([-1, -1, -1]))


@pytest.mark.contents
def test_an_empty_cache_takes_padding_alone(cache_ops: Any) -> None:
    empty = torch.zeros(0, 16, 2, 8)
    with pytest.raises(RuntimeError, match="slot_mapping holds 0"):
        flash(cache_ops, key_cache=empty, value_cache=empty, slot_mapping=torch.tensor([-1, 0]))
