# SPDX-License-Identifier: Apache-2.0
"""Writing keys and values into the cache that attention reads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable


def keys_of(cache: torch.Tensor) -> torch.Tensor:
    """[blocks * block_size, heads, head_size] of a key cache.

    A block consists of panels of 16 tokens; a panel stores element after element.
    """
    blocks, heads, size, width = cache.shape
    return (
        cache.reshape(blocks, heads, size // 16, width, 16)
        .permute(0, 2, 4, 1, 3)
        .reshape(blocks * size, heads, width)
    )


def values_of(cache: torch.Tensor) -> torch.Tensor:
    """[blocks * block_size, heads, head_size] of a value cache.

    A block consists of panels of 16 elements; a panel stores token after token. The remaining
    elements follow.
    """
    blocks, heads, size, width = cache.shape
    flat, full = cache.reshape(blocks, heads, size * width), width // 16 * 16
    panels = (
        flat[..., : full * size]
        .reshape(blocks, heads, full // 16, size, 16)
        .transpose(2, 3)
        .reshape(blocks, heads, size, full)
    )
    rest = flat[..., full * size :].reshape(blocks, heads, size, width - full)
    return torch.cat((panels, rest), dim=-1).transpose(1, 2).reshape(blocks * size, heads, width)


def caches(
    blocks: int, heads: int, size: int, width: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Key and value cache as upstream splits them from one tensor."""
    first, second = torch.full((blocks, heads, 2 * size, width), 9.0, dtype=dtype).chunk(2, dim=2)
    return first, second


def written(
    caches: tuple[torch.Tensor, torch.Tensor],
    key: torch.Tensor,
    value: torch.Tensor,
    slots: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """Contents of both caches after the call, computed with loops in Python."""
    keys, values = keys_of(caches[0]).clone(), values_of(caches[1]).clone()
    for token, slot in enumerate(slots.tolist()):
        if slot >= 0:
            keys[slot], values[slot] = key[token], value[token]
    return keys, values


@given(
    blocks=st.integers(1, 4),
    heads=st.integers(1, 3),
    size=st.sampled_from([16, 32, 48, 128]),
    width=st.integers(1, 70),
    tokens=st.integers(0, 90),
    kind=st.sampled_from(["scattered", "in order", "with gaps"]),
    pad=st.integers(0, 5),
)
def test_slots(
    ops: Any,
    *,
    dtype: torch.dtype,
    blocks: int,
    heads: int,
    size: int,
    width: int,
    tokens: int,
    kind: str,
    pad: int,
) -> None:
    tokens = min(tokens, blocks * size)
    slots = torch.randperm(blocks * size)[:tokens]
    if kind == "in order":
        slots = torch.arange(tokens) + (blocks * size - tokens) // 2
    elif kind == "with gaps":
        slots = slots.sort().values.masked_fill(torch.rand(tokens) < 0.3, -1)
    key = torch.randn(tokens, heads + 1, width + pad).to(dtype)[:, 1:, pad:]
    value = torch.randn(tokens, heads, width).to(dtype)
    both = caches(blocks, heads, size, width, dtype)
    want = written(both, key, value, slots)
    ops.cpu_attn_reshape_and_cache(key, value, *both, slots, "vec")
    assert torch.equal(keys_of(both[0]), want[0])
    assert torch.equal(values_of(both[1]), want[1])


def test_many_tokens(ops: Any, dtype: torch.dtype) -> None:
    """Several threads and strided slots."""
    key, value = torch.randn(700, 4, 128).to(dtype), torch.randn(700, 4, 128).to(dtype)
    slots = torch.stack((torch.arange(700) + 33, torch.full((700,), -5)), dim=1)[:, 0]
    both = caches(50, 4, 16, 128, dtype)
    want = written(both, key, value, slots)
    ops.cpu_attn_reshape_and_cache(key, value, *both, slots, "amx")
    assert torch.equal(keys_of(both[0]), want[0])
    assert torch.equal(values_of(both[1]), want[1])


BAD: dict[str, tuple[Callable[..., dict[str, Any]], str]] = {
    "slot too large": (
        lambda **_: {"slot_mapping": torch.tensor([3, 64, 5])},
        r"slot_mapping holds 64 for token 1, expected -1 .* < 64",
    ),
    "slot below -1": (
        lambda **_: {"slot_mapping": torch.tensor([3, 4, -2])},
        "slot_mapping holds -2 for token 2",
    ),
    "slots of int32": (
        lambda **_: {"slot_mapping": torch.zeros(3, dtype=torch.int32)},
        "slot_mapping is of dtype Int, expected Long",
    ),
    "few slots": (
        lambda **_: {"slot_mapping": torch.zeros(2, dtype=torch.long)},
        r"slot_mapping has shape \[2\], expected \[3\]",
    ),
    "value of other shape": (
        lambda **a: {"value": a["value"][:, :1]},
        r"value has shape \[3, 1, 20\], expected \[3, 2, 20\]",
    ),
    "key of two dimensions": (
        lambda **a: {"key": a["key"][0]},
        r"key has shape \[2, 20\], expected \[tokens, heads, head_size\]",
    ),
    "cache of other heads": (
        lambda **a: {"key_cache": a["key_cache"][:, :1], "value_cache": a["value_cache"][:, :1]},
        "key_cache has 1 heads",
    ),
    "cache of other size": (
        lambda **a: {"key_cache": a["key_cache"][..., :9]},
        "key_cache has shape",
    ),
    "cache of other dtype": (
        lambda **a: {"value_cache": a["value_cache"].half()},
        "value_cache is of dtype Half, expected Float",
    ),
    "cache over itself": (
        lambda **a: {"key_cache": a["key_cache"][:1].expand(4, 2, 16, 20)},
        "key_cache has strides .* separate memory",
    ),
    "isa": (lambda **_: {"isa": "avx"}, "isa is 'avx', expected amx, amx_fp8, vec"),
    "cache dtype": (
        lambda **_: {"kv_cache_dtype": "fp9"},
        "kv_cache_dtype is 'fp9', expected auto",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(ops: Any, name: str) -> None:
    first, second = torch.full((4, 2, 32, 20), math.pi).chunk(2, dim=2)
    arguments: dict[str, Any] = {
        "key": torch.randn(3, 2, 20),
        "value": torch.randn(3, 2, 20),
        "key_cache": first,
        "value_cache": second,
        "slot_mapping": torch.tensor([1, 2, 3]),
        "isa": "vec",
    }
    make, message = BAD[name]
    with pytest.raises(RuntimeError, match=f"^cpu_attn_reshape_and_cache: .*{message}"):
        ops.cpu_attn_reshape_and_cache(**(arguments | make(**arguments)))
    assert bool((first == math.pi).all())
    assert bool((second == math.pi).all())
