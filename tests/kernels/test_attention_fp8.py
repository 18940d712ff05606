# SPDX-License-Identifier: Apache-2.0
"""Attention over float8 caches.

Stored values equal torch's rounding; results are exact for the stored values.
"""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

_CACHE = runpy.run_path(str(Path(__file__).parent / "test_attention_cache.py"))
FORMATS = {
    "fp8": torch.float8_e4m3fn,
    "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}


def rounded(values: torch.Tensor, scale: float, to: torch.dtype) -> torch.Tensor:
    """Codes of values divided by a scale, saturated at the largest number."""
    largest = torch.finfo(to).max
    return (values.float() * (1.0 / torch.tensor(scale))).clamp(-largest, largest).to(to)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("width", [16, 40, 128])
@pytest.mark.parametrize("view", [True, False], ids=["uint8", "float8"])
def test_codes(ops: Any, dtype: torch.dtype, name: str, width: int, *, view: bool) -> None:
    key, value = (100 * torch.randn(50, 3, width).to(dtype) for _ in range(2))
    key[3, 1, 5] = 6e4
    slots = torch.randperm(64)[:50]
    slots[:20] = torch.arange(20) + 7
    slots[20:] = torch.arange(64)[30:60]
    caches = [torch.zeros(2, 3, 32, width, dtype=torch.uint8) for _ in range(2)]
    given = caches if view else [cache.view(FORMATS[name]) for cache in caches]
    ops.cpu_attn_reshape_and_cache(key, value, *given, slots, "vec", 0.5, 2.0, name)
    assert torch.equal(
        _CACHE["keys_of"](caches[0])[slots], rounded(key, 0.5, FORMATS[name]).view(torch.uint8)
    )
    assert torch.equal(
        _CACHE["values_of"](caches[1])[slots], rounded(value, 2.0, FORMATS[name]).view(torch.uint8)
    )


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e5m2"])
def test_every_tie(ops: Any, name: str) -> None:
    """Numbers halfway between two codes, also between those of subnormal numbers."""
    codes = torch.arange(128, dtype=torch.uint8).view(FORMATS[name]).float()
    codes = codes[codes.isfinite()]
    ties = (codes[1:] + codes[:-1]) / 2
    rows = -(-4 * codes.numel() // 16)
    values = torch.zeros(rows * 16)
    given = torch.cat((ties, -ties, codes, -codes))
    values[: given.numel()] = given
    key = values.reshape(rows, 1, 16)
    caches = [torch.zeros(2, 1, 32, 16, dtype=torch.uint8) for _ in range(2)]
    slots = torch.arange(rows)
    ops.cpu_attn_reshape_and_cache(key, key, *caches, slots, "vec", 1.0, 1.0, name)
    want = key.to(FORMATS[name]).view(torch.uint8)
    assert torch.equal(_CACHE["keys_of"](caches[0])[slots], want)
    assert torch.equal(_CACHE["values_of"](caches[1])[slots], want)


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e5m2"])
@pytest.mark.parametrize(("new", "tokens"), [(1, 300), (1, 5), (90, 200)])
@pytest.mark.parametrize("head_size", [64, 40])
def test_attention(
    ops: Any, dtype: torch.dtype, name: str, new: int, tokens: int, head_size: int
) -> None:
    heads, kv_heads, blocks = 4, 2, -(-tokens // 16)
    query = torch.randn(new, heads, head_size).to(dtype)
    key, value = (torch.randn(tokens, kv_heads, head_size).to(dtype) for _ in range(2))
    caches = [
        torch.full((blocks, kv_heads, 16, head_size), 0x7F, dtype=torch.uint8) for _ in range(2)
    ]
    scales = (0.03, 0.7)
    ops.cpu_attn_reshape_and_cache(key, value, *caches, torch.arange(tokens), "vec", *scales, name)
    starts, lengths = (
        torch.tensor([0, new], dtype=torch.int32),
        torch.tensor([tokens], dtype=torch.int32),
    )
    metadata = ops.get_scheduler_metadata(
        1, heads, kv_heads, head_size, lengths, dtype, starts, True, -1, "vec", True, None, name
    )
    output = torch.full_like(query, math.nan)
    table = torch.arange(blocks, dtype=torch.int32)[None]
    ops.cpu_attention_with_kv_cache(
        query,
        *caches,
        output,
        starts,
        lengths,
        0.2,
        True,
        None,
        -1,
        table,
        0.0,
        metadata,
        None,
        None,
        *scales,
        name,
    )
    k, v = (
        (rounded(t, scale, FORMATS[name]).double() * scale).repeat_interleave(
            heads // kv_heads, dim=1
        )
        for t, scale in ((key, scales[0]), (value, scales[1]))
    )
    scores = torch.einsum("qhd,khd->hqk", query.double(), k) * 0.2
    hidden = torch.ones(new, tokens, dtype=torch.bool).triu(tokens - new + 1)
    want = torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -math.inf).softmax(-1), v)
    relative = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-10}[dtype]
    torch.testing.assert_close(output.double(), want, rtol=relative, atol=1e-5)


@pytest.mark.parametrize(
    ("cache", "scale", "message"),
    [
        (torch.zeros(1, 2, 16, 8), 1.0, "key_cache is of dtype Float, expected Byte"),
        (
            torch.zeros(1, 2, 16, 8, dtype=torch.float8_e5m2),
            1.0,
            "key_cache is of dtype Float8_e5m2, expected Byte",
        ),
        (torch.zeros(1, 2, 16, 8, dtype=torch.uint8), 0.0, "k_scale is 0.0+, expected more than 0"),
        (
            torch.zeros(1, 2, 16, 8, dtype=torch.uint8),
            math.nan,
            "k_scale is -?nan, expected more than 0",
        ),
    ],
)
def test_bad_arguments(ops: Any, cache: torch.Tensor, scale: float, message: str) -> None:
    key = torch.randn(2, 2, 8)
    with pytest.raises(RuntimeError, match=f"^cpu_attn_reshape_and_cache: {message}"):
        ops.cpu_attn_reshape_and_cache(
            key, key, cache, cache.clone(), torch.arange(2), "vec", scale, 1.0, "fp8"
        )
