# SPDX-License-Identifier: Apache-2.0
"""The cache of an indexer's keys. References address single bytes of the documented layout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from float8 import E4M3, FOREIGN, REFUSED, SCALED
from hypothesis import given
from hypothesis import strategies as st


def ints(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def stored(k: torch.Tensor, group: int, form: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales of keys."""
    groups = k.float().unflatten(-1, (-1, group))
    scales = groups.abs().amax(-1).clamp(1e-4) / SCALED[E4M3]
    if form == "ue8m0":
        scales = scales.double().log2().ceil().exp2().float()
    return (groups / scales[..., None]).to(E4M3).view(torch.uint8).flatten(-2), scales


@given(
    tokens=st.integers(0, 20),
    blocks=st.integers(1, 4),
    block_size=st.sampled_from([4, 8, 64]),
    group=st.sampled_from([1, 3, 4, 32, 128, 140]),
    groups=st.integers(1, 3),
    form=st.sampled_from(["ue8m0", "", "auto", "fp8", "fp8_e4m3"]),
    pad=st.integers(0, 4),
    data=st.data(),
)
def test_write_and_gather(
    cache_ops: Any,
    dtype: torch.dtype,
    *,
    tokens: int,
    blocks: int,
    block_size: int,
    group: int,
    groups: int,
    form: str,
    pad: int,
    data: Any,
) -> None:
    width = group * groups
    memory = torch.randint(
        0, 100, (blocks, 4 + block_size * (width + 4 * groups)), dtype=torch.uint8
    )
    cache = memory[:, 4:].view(blocks, block_size, width + 4 * groups)
    k = (torch.randn(tokens, width + pad) * 100 ** torch.randn(tokens, 1)).to(dtype)[:, :width]
    slots = torch.randperm(max(tokens, blocks * block_size))[:tokens]
    slots[slots >= blocks * block_size] = data.draw(
        st.sampled_from([-1, -7, blocks * block_size, 2**62])
    )
    want = memory.clone()
    codes, scales = stored(k, group, form)
    for token, slot in enumerate(slots.tolist()):
        if 0 <= slot < blocks * block_size:
            block, offset = want[slot // block_size, 4:], slot % block_size
            block[offset * width :][:width] = codes[token]
            block[block_size * width + offset * 4 * groups :][: 4 * groups] = scales[token].view(
                torch.uint8
            )
    cache_ops.indexer_k_quant_and_cache(k, cache, slots, group, form)
    assert torch.equal(memory, want)

    lengths = data.draw(st.lists(st.integers(0, blocks * block_size), max_size=3))
    table = (
        torch.stack([torch.randperm(blocks) for _ in lengths]).int()
        if lengths
        else torch.zeros(0, 1).int()
    )
    bounds = ints([0, *torch.tensor(lengths).cumsum(0).tolist()]) + 1
    rows = int(bounds[-1]) + 1
    as_bytes = data.draw(st.booleans())
    keys = torch.full((rows, width), 7, dtype=torch.uint8)
    of_keys = torch.full((rows, groups), 7.0)
    want_keys, want_scales, row = keys.clone(), of_keys.clone(), 1
    for sequence, length in enumerate(lengths):
        for position in range(length):
            block, offset = (
                memory[table[sequence, position // block_size], 4:],
                position % block_size,
            )
            want_keys[row] = block[offset * width :][:width]
            want_scales[row] = (
                block[block_size * width + offset * 4 * groups :][: 4 * groups]
                .clone()
                .view(torch.float32)
            )
            row += 1
    cache_ops.cp_gather_indexer_k_quant_cache(
        cache,
        keys if as_bytes else keys.view(E4M3),
        of_keys.view(torch.uint8) if as_bytes else of_keys,
        table,
        bounds,
    )
    assert torch.equal(keys, want_keys)
    assert torch.equal(of_keys.view(torch.uint8), want_scales.view(torch.uint8))


def test_tokens_without_a_block_stay(cache_ops: Any) -> None:
    cache, keys, scales = (
        torch.zeros(2, 4, 12, dtype=torch.uint8),
        torch.full((6, 8), 7, dtype=torch.uint8),
        torch.full((6, 1), 7.0),
    )
    cache_ops.cp_gather_indexer_k_quant_cache(
        cache, keys, scales, ints([[1], [2], [-1]]), ints([0, 2, 4, 9])
    )
    assert keys[:, 0].tolist() == [0, 0, 7, 7, 7, 7]
    assert scales[:, 0].tolist() == [0, 0, 7, 7, 7, 7]


CACHE, K = torch.zeros(2, 4, 12, dtype=torch.uint8), torch.zeros(3, 8)
BAD_WRITES = {
    "flat k": ({"k": K[0]}, r"k has shape \[8\], expected \[num_tokens, head_dim\]"),
    "double k": ({"k": K.double()}, "k is of dtype Double"),
    "no divisor": (
        {"quant_block_size": 3},
        "quant_block_size is 3, expected a divisor of head_dim 8",
    ),
    "zero": ({"quant_block_size": 0}, "quant_block_size is 0"),
    "format": ({"kv_cache_dtype": "fp8_e5m2"}, "kv_cache_dtype is 'fp8_e5m2', expected ue8m0"),
    "float cache": ({"kv_cache": CACHE.float()}, "kv_cache is of dtype Float, expected Byte"),
    "no room for scales": (
        {"quant_block_size": 4},
        r"kv_cache has shape \[2, 4, 12\], expected \[num_blocks, block_size, 16\]",
    ),
    "apart": (
        {"kv_cache": torch.zeros(2, 4, 16).byte()[..., :12]},
        "kv_cache has strides .*, expected contiguous blocks",
    ),
    "odd": (
        {"k": torch.zeros(3, 7), "quant_block_size": 7, "kv_cache": torch.zeros(2, 3, 11).byte()},
        "kv_cache .* multiples of four",
    ),
    "int slots": ({"slot_mapping": ints([0, 1, 2])}, "slot_mapping is of dtype Int, expected Long"),
}


@pytest.mark.parametrize("case", BAD_WRITES)
def test_bad_writes(cache_ops: Any, case: str) -> None:
    changes, message = BAD_WRITES[case]
    arguments = {
        "k": K,
        "kv_cache": CACHE,
        "slot_mapping": torch.arange(3),
        "quant_block_size": 8,
        "kv_cache_dtype": "ue8m0",
    } | changes
    with pytest.raises(RuntimeError, match=f"^indexer_k_quant_and_cache: {message}"):
        cache_ops.indexer_k_quant_and_cache(**arguments)


BAD_GATHERS = {
    "scales of two": (
        {"dst_scale": torch.zeros(2, 1)},
        r"dst_scale has shape \[2, 1\], expected \[3, scales of a token\]",
    ),
    "three bytes": ({"dst_scale": torch.zeros(3, 3).byte()}, r"dst_scale has shape \[3, 3\]"),
    "half scales": (
        {"dst_scale": torch.zeros(3, 1).half()},
        "dst_scale is of dtype Half, expected Float",
    ),
    "float keys": ({"dst_k": torch.zeros(3, 8)}, "dst_k is of dtype Float, expected Float8_e4m3fn"),
    "keys of another device": ({"dst_k": torch.zeros(3, 8).to(FOREIGN)}, f"dst_k {REFUSED}"),
    "other width": (
        {"dst_k": torch.zeros(3, 7).byte()},
        r"kv_cache has shape \[2, 4, 12\], expected \[num_blocks, block_size, 11\]",
    ),
    "long table": (
        {"block_table": torch.zeros(1, 1).long()},
        "block_table is of dtype Long, expected Int",
    ),
    "bounds of two": (
        {"cu_seq_lens": ints([0, 1, 2])},
        r"cu_seq_lens has shape \[3\], expected \[2\]",
    ),
}


@pytest.mark.parametrize("case", BAD_GATHERS)
def test_bad_gathers(cache_ops: Any, case: str) -> None:
    changes, message = BAD_GATHERS[case]
    arguments = {
        "kv_cache": CACHE,
        "dst_k": torch.zeros(3, 8).byte(),
        "dst_scale": torch.zeros(3, 1),
    }
    arguments |= {"block_table": ints([[0]]), "cu_seq_lens": ints([0, 3])} | changes
    with pytest.raises(RuntimeError, match=f"^cp_gather_indexer_k_quant_cache: {message}"):
        cache_ops.cp_gather_indexer_k_quant_cache(**arguments)
