# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from row_cases import Check


DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def make_cache(positions: int, rotary_dim: int, dtype: torch.dtype) -> torch.Tensor:
    angles = torch.outer(
        torch.arange(positions, dtype=torch.float64),
        1e4 ** (-torch.arange(0, rotary_dim, 2, dtype=torch.float64) / max(rotary_dim, 1)),
    )
    return torch.cat([angles.cos(), angles.sin()], -1).to(dtype)


def reference(
    x: torch.Tensor,
    positions: torch.Tensor,
    cache: torch.Tensor,
    *,
    neox: bool,
    offset: int,
    inverse: bool,
) -> torch.Tensor:
    """Rotate ``x`` in float64, as a multiplication of complex numbers.

    The shape of ``x`` is ``[*positions.shape, heads, head_size]``.
    """
    result = x.double().clone()
    rotary_dim = cache.shape[1]
    cos, sin = cache.double()[positions].unsqueeze(-2).chunk(2, -1)
    turn = torch.complex(cos, -sin if inverse else sin)
    part = result[..., offset : offset + rotary_dim]
    pairs = part.unflatten(-1, (2, -1)).transpose(-1, -2) if neox else part.unflatten(-1, (-1, 2))
    turned = torch.view_as_real(torch.complex(*pairs.unbind(-1)) * turn)
    result[..., offset : offset + rotary_dim] = (
        turned.transpose(-1, -2) if neox else turned
    ).flatten(-2)
    return result


@pytest.mark.parametrize("neox", [True, False], ids=["neox", "gptj"])
@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize(
    ("head_size", "rotary_dim", "offset"),
    [(128, 128, 0), (128, 64, 64), (80, 20, 3), (6, 2, 1), (64, 64, 0), (112, 112, 0), (8, 0, 0)],
)
@pytest.mark.parametrize("flat", [True, False], ids=["flat", "heads"])
def test_query_and_key(
    ops: Any,
    check: Check,
    dtype: torch.dtype,
    *,
    neox: bool,
    inverse: bool,
    head_size: int,
    rotary_dim: int,
    offset: int,
    flat: bool,
) -> None:
    tokens, heads, kv_heads = 11, 4, 2
    positions, cache = torch.randint(0, 50, (tokens,)), make_cache(50, rotary_dim, dtype)
    query, key = (
        torch.randn(tokens, heads, head_size).to(dtype),
        torch.randn(tokens, kv_heads, head_size).to(dtype),
    )
    want = [
        reference(x, positions, cache, neox=neox, offset=offset, inverse=inverse)
        for x in (query, key)
    ]
    arguments = [x.flatten(1) if flat else x for x in (query, key)]
    ops.rotary_embedding(positions, *arguments, head_size, cache, neox, offset, inverse)
    check(query, want[0])
    check(key, want[1])


@pytest.mark.parametrize("cache_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("neox", [True, False], ids=["neox", "gptj"])
def test_cache_has_its_own_dtype(
    ops: Any, check: Check, dtype: torch.dtype, cache_dtype: torch.dtype, *, neox: bool
) -> None:
    positions, cache = torch.randint(0, 50, (5,)), make_cache(50, 40, cache_dtype)
    query = torch.randn(5, 3, 40).to(dtype)
    want = reference(query, positions, cache, neox=neox, offset=0, inverse=False)
    ops.rotary_embedding(positions, query, None, 40, cache, neox)
    check(query, want)


@given(
    shape=st.one_of(st.tuples(st.integers(0, 9)), st.tuples(st.integers(0, 4), st.integers(0, 4))),
    heads=st.integers(1, 4),
    half=st.integers(0, 40),
    before=st.integers(0, 5),
    after=st.integers(0, 5),
    pad=st.integers(0, 7),
    swapped=st.booleans(),
    neox=st.booleans(),
    inverse=st.booleans(),
)
def test_any_layout(
    ops: Any,
    check: Check,
    dtype: torch.dtype,
    *,
    shape: tuple[int, ...],
    heads: int,
    half: int,
    before: int,
    after: int,
    pad: int,
    swapped: bool,
    neox: bool,
    inverse: bool,
) -> None:
    """Partial rotation, tails, batches in any memory order, strided heads."""
    head_size = max(1, before + 2 * half + after)
    positions, cache = torch.randint(0, 20, shape), make_cache(20, 2 * half, torch.float32)
    memory = torch.randn(*(reversed(shape) if swapped else shape), heads, head_size + pad).to(dtype)
    query = (memory.transpose(0, len(shape) - 1) if swapped else memory)[..., :head_size]
    outside = memory[..., head_size:].clone()
    want = reference(query, positions, cache, neox=neox, offset=before, inverse=inverse)
    ops.rotary_embedding(positions, query, None, head_size, cache, neox, before, inverse)
    check(query, want)
    assert torch.equal(memory[..., head_size:], outside)


def test_inside_qkv(ops: Any, check: Check, dtype: torch.dtype) -> None:
    """Query and key are slices of one tensor; the value next to them stays unchanged."""
    positions, cache = torch.arange(7), make_cache(7, 48, dtype)
    qkv = torch.randn(7, 4 * 48 + 48 + 48).to(dtype)
    query, key, value = qkv.split([4 * 48, 48, 48], -1)
    want = [
        reference(
            x.unflatten(-1, (-1, 48)), positions, cache, neox=True, offset=0, inverse=False
        ).flatten(1)
        for x in (query, key)
    ]
    kept = value.clone()
    ops.rotary_embedding(positions, query, key, 48, cache, True)
    check(query, want[0])
    check(key, want[1])
    assert torch.equal(value, kept)


@pytest.mark.parametrize("neox", [True, False], ids=["neox", "gptj"])
def test_inverse_undoes(ops: Any, *, neox: bool) -> None:
    positions, cache = torch.arange(300), make_cache(300, 64, torch.float32)
    query = torch.randn(300, 8 * 64)
    original = query.clone()
    ops.rotary_embedding(positions, query, None, 64, cache, neox)
    assert not torch.allclose(query, original)
    ops.rotary_embedding(positions, query, None, 64, cache, neox, 0, True)
    torch.testing.assert_close(query, original, rtol=1e-5, atol=1e-5)


def test_strided_positions_and_cache(ops: Any, check: Check) -> None:
    positions, cache = torch.arange(18)[::3], make_cache(18, 16, torch.float32)
    padded = torch.randn(18, 20)
    padded[:, :16] = cache
    query = torch.randn(6, 2, 16)
    want = reference(query, positions, cache, neox=True, offset=0, inverse=False)
    ops.rotary_embedding(positions, query, None, 16, padded[:, :16], True)
    check(query, want)


def call(ops: Any, **changes: Any) -> None:
    arguments: dict[str, Any] = {
        "positions": torch.arange(4),
        "query": torch.zeros(4, 2 * 16),
        "key": torch.zeros(4, 16),
        "head_size": 16,
        "cos_sin_cache": make_cache(8, 16, torch.float32),
        "is_neox": True,
    }
    ops.rotary_embedding(**(arguments | changes))


BAD = {
    "int32 positions": (
        {"positions": torch.arange(4, dtype=torch.int32)},
        "positions is of dtype Int, expected Long",
    ),
    "three-dimensional positions": (
        {"positions": torch.zeros(1, 1, 4, dtype=torch.long)},
        r"positions has shape \[1, 1, 4\]",
    ),
    "too few tokens in query": (
        {"query": torch.zeros(3, 32)},
        r"query has shape \[3, 32\], expected \[4, heads \* 16\] or \[4, heads, 16\]",
    ),
    "too few tokens in key": ({"key": torch.zeros(3, 16)}, r"key has shape \[3, 16\]"),
    "query of no whole heads": ({"query": torch.zeros(4, 24)}, r"query has shape \[4, 24\]"),
    "heads of other size": ({"query": torch.zeros(4, 4, 8)}, r"query has shape \[4, 4, 8\]"),
    "query without heads": ({"query": torch.zeros(4)}, r"query has shape \[4\]"),
    "float64 query": ({"query": torch.zeros(4, 32).double()}, "query is of dtype Double"),
    "key of other dtype": (
        {"key": torch.zeros(4, 16).half()},
        "key is of dtype Half, expected Float, the dtype of query",
    ),
    "integer cache": ({"cos_sin_cache": torch.zeros(8, 16).int()}, "cos_sin_cache is of dtype Int"),
    "odd cache": (
        {"cos_sin_cache": torch.zeros(8, 15)},
        r"cos_sin_cache has shape \[8, 15\], expected .* even",
    ),
    "flat cache": ({"cos_sin_cache": torch.zeros(16)}, r"cos_sin_cache has shape \[16\]"),
    "cache in columns": (
        {"cos_sin_cache": torch.zeros(16, 8).t()},
        r"cos_sin_cache has strides \[1, 8\]",
    ),
    "cache wider than a head": (
        {"cos_sin_cache": torch.zeros(8, 18)},
        ".* do not fit into head_size 16",
    ),
    "offset too large": (
        {"rope_dim_offset": 1},
        "rope_dim_offset 1 .* do not fit into head_size 16",
    ),
    "offset negative": ({"rope_dim_offset": -1}, "rope_dim_offset -1"),
    "offset near the largest integer": (
        {"rope_dim_offset": 2**63 - 1},
        "rope_dim_offset 9223372036854775807",
    ),
    "head size zero": ({"head_size": 0}, "head_size is 0, expected at least 1"),
    "query over itself": (
        {"query": torch.zeros(1, 32).expand(4, 32)},
        r"query has strides \[0, 1\]",
    ),
    "query in columns": ({"query": torch.zeros(32, 4).t()}, r"query has strides \[1, 4\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(ops: Any, case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(RuntimeError, match=f"^rotary_embedding: {message}"):
        call(ops, **changes)


BAD_POSITIONS = {
    "position too large": (
        {"positions": torch.tensor([0, 1, 8, 2])},
        r"positions holds 8 for token 2, expected 0 <= position < 8",
    ),
    "position negative": (
        {"positions": torch.tensor([0, -1, 1, 2])},
        "positions holds -1 for token 1",
    ),
}


@pytest.mark.contents
@pytest.mark.parametrize("case", BAD_POSITIONS)
def test_bad_positions(ops: Any, case: str) -> None:
    changes, message = BAD_POSITIONS[case]
    with pytest.raises(RuntimeError, match=f"^rotary_embedding: {message}"):
        call(ops, **changes)


@pytest.mark.contents
def test_bad_position_changes_nothing(ops: Any) -> None:
    query = torch.randn(4, 32)
    before = query.clone()
    with pytest.raises(RuntimeError, match="positions holds 99"):
        call(ops, query=query, positions=torch.tensor([1, 2, 3, 99]))
    assert torch.equal(query, before)


@pytest.mark.skipif(
    os.environ.get("KERNEL_TEST_DEVICE", "cpu") == "cpu", reason="on the CPU these are errors"
)
@pytest.mark.parametrize("neox", [True, False], ids=["neox", "gptj"])
@pytest.mark.parametrize("bad", [8, -1, 2**63 - 1, -(2**63)])
def test_tokens_with_bad_positions_stay(ops: Any, check: Check, *, bad: int, neox: bool) -> None:
    positions, cache = torch.tensor([3, bad, 0, bad, 7]), make_cache(8, 16, torch.float32)
    query, key = torch.randn(5, 3, 20), torch.randn(5, 1, 20)
    good = torch.tensor([0, 2, 4])
    want = [x.double() for x in (query, key)]
    for x in want:
        x[good] = reference(x[good], positions[good], cache, neox=neox, offset=2, inverse=False)
    ops.rotary_embedding(positions, query, key, 20, cache, neox, 2)
    check(query, want[0])
    check(key, want[1])
