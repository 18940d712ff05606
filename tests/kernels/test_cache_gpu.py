# SPDX-License-Identifier: Apache-2.0
"""GPU cache ops skip tokens with invalid slots, blocks or lengths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from float8 import E4M3


def ints(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


@pytest.mark.parametrize("form", ["auto", "fp8"])
def test_bad_slots_are_not_written(cache_ops: Any, form: str) -> None:
    """The caches are the inner blocks of larger ones; the outer blocks stay unchanged."""
    around = [
        torch.full((6, 4, 2, 8), 7, dtype=torch.float32 if form == "auto" else torch.uint8)
        for _ in range(2)
    ]
    key, value, scale = torch.randn(5, 2, 8), torch.randn(5, 2, 8), torch.ones(1)
    slots = torch.tensor([-2, 16, 3, -(2**63), 2**63 - 1])
    cache_ops.reshape_and_cache_flash(
        key, value, *(cache[1:5] for cache in around), slots, form, scale, scale
    )
    for cache, tokens in zip(around, (key, value), strict=True):
        want = torch.full_like(cache, 7)
        want[1, 3] = tokens[2] if form == "auto" else tokens[2].to(E4M3).view(torch.uint8)
        assert torch.equal(cache, want)


def test_an_empty_cache_is_not_written(cache_ops: Any) -> None:
    tokens, empty = torch.zeros(3, 2, 8), torch.zeros(0, 16, 2, 8)
    cache_ops.reshape_and_cache_flash(
        tokens, tokens, empty, empty, torch.arange(3), "auto", torch.ones(1), torch.ones(1)
    )


@pytest.mark.parametrize(
    ("changes", "left_out"),
    [
        ({"block_table": ints([[2, 1], [0, 3]])}, [6]),
        ({"block_table": ints([[-1, 1], [0, 1]])}, [0, 1]),
        ({"block_table": ints([[2], [0]])}, [6]),
        ({"seq_starts": ints([7, 0])}, [1]),
        ({"seq_starts": ints([0, -1])}, [2]),
        ({"cu_seq_lens": ints([0, 2, 9])}, []),
        ({"cu_seq_lens": ints([-1, 2, 7])}, []),
        ({"cu_seq_lens": ints([3, 9, 2])}, [0, 1, 2]),
    ],
)
def test_tokens_without_a_block_stay(
    cache_ops: Any, changes: dict[str, torch.Tensor], left_out: list[int]
) -> None:
    dst = torch.full((7, 5), 9.0)
    arguments = {
        "block_table": ints([[2, 1], [0, 1]]),
        "cu_seq_lens": ints([0, 2, 7]),
        "seq_starts": None,
    } | changes
    cache_ops.cp_gather_cache(torch.ones(3, 4, 5), dst, batch_size=2, **arguments)
    assert [row for row in range(7) if (dst[row] == 9).all()] == left_out
    assert torch.equal(dst[dst[:, 0] != 9], torch.ones(7 - len(left_out), 5))
