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


def make_cache(positions: int, rotary: int, dtype: torch.dtype) -> torch.Tensor:
    angle = torch.randn(positions, rotary // 2)
    return torch.cat((angle.cos(), angle.sin()), -1).to(dtype)


def norm_rope(
    x: torch.Tensor, weight: torch.Tensor, rows: torch.Tensor, eps: float, *, neox: bool
) -> torch.Tensor:
    """x: [tokens, heads, head_dim]; rows: [tokens, rotary] of the cache."""
    x = x.double()
    x = x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()
    cos, sin = rows.double().unsqueeze(1).chunk(2, -1)
    rotary = rows.shape[-1]
    part = x[..., :rotary]
    a, b = part.chunk(2, -1) if neox else (part[..., 0::2], part[..., 1::2])
    first, second = a * cos - b * sin, b * cos + a * sin
    rotated = (
        torch.cat((first, second), -1) if neox else torch.stack((first, second), -1).flatten(-2)
    )
    return torch.cat((rotated, x[..., rotary:]), -1)


def check_call(
    ops: Any,
    check: Check,
    qkv: torch.Tensor,
    heads: tuple[int, int, int],
    size: int,
    cache: torch.Tensor,
    *,
    neox: bool,
    eps: float = 1e-6,
) -> None:
    tokens = qkv.shape[0]
    positions = torch.randint(0, len(cache), (tokens,))
    q_weight, k_weight = torch.randn(size).to(qkv.dtype), torch.randn(size).to(qkv.dtype)
    queries, keys, values = qkv.unflatten(-1, (sum(heads), size)).split(heads, 1)
    want_q = norm_rope(queries, q_weight, cache[positions], eps, neox=neox)
    want_k = norm_rope(keys, k_weight, cache[positions], eps, neox=neox)
    kept = values.clone()
    ops.fused_qk_norm_rope(qkv, *heads, size, eps, q_weight, k_weight, cache, neox, positions)
    check(queries, want_q)
    check(keys, want_k)
    assert torch.equal(values, kept)


@pytest.fixture(scope="session")
def check() -> Check:
    """Compare with a tolerance relative to a head's elements, which are about one.

    Cancellation in a rotation makes the error relative to the result meaningless.
    """
    absolute = {torch.float32: 1e-5, torch.bfloat16: 1e-5, torch.float16: 1e-5}
    relative = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-10}

    def close(got: torch.Tensor, want: torch.Tensor) -> None:
        torch.testing.assert_close(
            got.double(), want, rtol=relative[got.dtype], atol=absolute[got.dtype]
        )

    return close


@pytest.mark.parametrize("neox", [True, False], ids=["neox", "gptj"])
@pytest.mark.parametrize("cache_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [0, 1, 19, 300])
def test_common_sizes(
    ops: Any, check: Check, dtype: torch.dtype, *, cache_dtype: torch.dtype, tokens: int, neox: bool
) -> None:
    qkv = torch.randn(tokens, 8 * 128).to(dtype)
    check_call(ops, check, qkv, (4, 2, 2), 128, make_cache(50, 128, cache_dtype), neox=neox)


@given(
    tokens=st.integers(0, 9),
    heads=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
    half=st.integers(0, 40),
    after=st.integers(0, 5),
    pad=st.integers(0, 7),
    neox=st.booleans(),
)
def test_any_size(
    ops: Any,
    check: Check,
    dtype: torch.dtype,
    *,
    tokens: int,
    heads: tuple[int, int, int],
    half: int,
    after: int,
    pad: int,
    neox: bool,
) -> None:
    """Partial rotation, tails, strided rows, and missing kinds of heads."""
    size = max(1, 2 * half + after)
    memory = torch.randn(tokens, sum(heads) * size + pad).to(dtype)
    outside = memory[:, sum(heads) * size :].clone()
    check_call(
        ops,
        check,
        memory[:, : sum(heads) * size],
        heads,
        size,
        make_cache(20, 2 * half, torch.float32),
        neox=neox,
        eps=1e-3,
    )
    assert torch.equal(memory[:, sum(heads) * size :], outside)


def call(ops: Any, changes: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {
        "qkv": torch.zeros(4, 4 * 16),
        "num_heads_q": 2,
        "num_heads_k": 1,
        "num_heads_v": 1,
        "head_dim": 16,
        "eps": 1e-6,
        "q_weight": torch.ones(16),
        "k_weight": torch.ones(16),
        "cos_sin_cache": make_cache(8, 16, torch.float32),
        "is_neox": True,
        "position_ids": torch.arange(4),
    }
    ops.fused_qk_norm_rope(**(arguments | changes))


BAD = {
    "too few positions": (
        {"position_ids": torch.arange(3)},
        r"position_ids has shape \[3\], expected \[4\]",
    ),
    "int32 positions": (
        {"position_ids": torch.arange(4, dtype=torch.int32)},
        "position_ids is of dtype Int, expected Long",
    ),
    "heads that do not fit": (
        {"num_heads_v": 2},
        r"qkv has shape \[4, 64\], expected \[tokens, \(2 \+ 1 \+ 2\) \* 16\]",
    ),
    "many heads": ({"num_heads_q": 2**62}, r"qkv has shape \[4, 64\]"),
    "negative heads": ({"num_heads_k": -1}, "num_heads_k is -1, expected at least 0"),
    "head size zero": ({"head_dim": 0}, "head_dim is 0, expected at least 1"),
    "three dimensions": ({"qkv": torch.zeros(4, 4, 16)}, r"qkv has shape \[4, 4, 16\]"),
    "float64": ({"qkv": torch.zeros(4, 64).double()}, "qkv is of dtype Double"),
    "qkv over itself": ({"qkv": torch.zeros(1, 64).expand(4, 64)}, r"qkv has strides \[0, 1\]"),
    "weight too short": (
        {"k_weight": torch.ones(15)},
        r"k_weight has shape \[15\], expected \[16\]",
    ),
    "weight of other dtype": (
        {"q_weight": torch.ones(16).half()},
        "q_weight is of dtype Half, expected Float, the dtype of qkv",
    ),
    "odd cache": (
        {"cos_sin_cache": torch.zeros(8, 15)},
        r"cos_sin_cache has shape \[8, 15\], expected .* even",
    ),
    "cache wider than a head": (
        {"cos_sin_cache": torch.zeros(8, 18)},
        r"cos_sin_cache has shape \[8, 18\], expected at most head_dim 16",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(ops: Any, case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(RuntimeError, match=f"^fused_qk_norm_rope: {message}"):
        call(ops, changes)


BAD_POSITIONS = {
    "position too large": (
        {"position_ids": torch.tensor([0, 1, 8, 2])},
        r"position_ids holds 8 for token 2, expected 0 <= position < 8",
    ),
    "position negative": (
        {"position_ids": torch.tensor([0, -1, 1, 2])},
        "position_ids holds -1 for token 1",
    ),
}


@pytest.mark.contents
@pytest.mark.parametrize("case", BAD_POSITIONS)
def test_bad_positions(ops: Any, case: str) -> None:
    changes, message = BAD_POSITIONS[case]
    with pytest.raises(RuntimeError, match=f"^fused_qk_norm_rope: {message}"):
        call(ops, changes)


@pytest.mark.contents
def test_bad_position_changes_nothing(ops: Any) -> None:
    qkv = torch.randn(4, 64)
    before = qkv.clone()
    with pytest.raises(RuntimeError, match="position_ids holds 99"):
        call(ops, {"qkv": qkv, "position_ids": torch.tensor([1, 2, 3, 99])})
    assert torch.equal(qkv, before)


@pytest.mark.skipif(
    os.environ.get("KERNEL_TEST_DEVICE", "cpu") == "cpu", reason="on the CPU these are errors"
)
@pytest.mark.parametrize("bad", [8, -1, 2**63 - 1, -(2**63)])
def test_tokens_with_bad_positions_stay(ops: Any, bad: int) -> None:
    qkv, positions = torch.randn(5, 64), torch.tensor([3, bad, 0, bad, 7])
    good = torch.tensor([0, 2, 4])
    want, alone, cache = qkv.clone(), qkv[good], make_cache(8, 16, torch.float32)
    call(ops, {"qkv": alone, "position_ids": positions[good], "cos_sin_cache": cache})
    want[good] = alone
    call(ops, {"qkv": qkv, "position_ids": positions, "cos_sin_cache": cache})
    assert torch.equal(qkv, want)
