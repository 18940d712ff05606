# SPDX-License-Identifier: Apache-2.0
"""The order of routes, in blocks of one expert."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

#: A case about the contents of a tensor.
CONTENTS = partial(pytest.param, marks=pytest.mark.contents)


def int32(*shape: int) -> torch.Tensor:
    return torch.full(shape, 77, dtype=torch.int32)


def align_reference(
    ids: list[int], experts: int, block: int, expert_map: list[int] | None
) -> tuple[list[int], list[int]]:
    order, blocks = [], []
    for expert in range(experts):
        mine = [
            i
            for i, e in enumerate(ids)
            if 0 <= e < experts and (expert_map[e] if expert_map else e) == expert
        ]
        count = -(-len(mine) // block)
        order += mine + [len(ids)] * (count * block - len(mine))
        blocks += [expert] * count
    return order, blocks


@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
@given(
    tokens=st.integers(0, 30),
    topk=st.integers(1, 4),
    experts=st.integers(1, 9),
    block=st.integers(1, 17),
    mapped=st.booleans(),
    data=st.data(),
)
def test_align(
    moe: Any,
    *,
    index: torch.dtype,
    tokens: int,
    topk: int,
    experts: int,
    block: int,
    mapped: bool,
    data: Any,
) -> None:
    ids = torch.randint(-1, experts + 1, (topk, tokens)).to(index).t()
    where = data.draw(st.permutations(range(experts))) if mapped else None
    where = [e if e % 2 else -1 for e in where] if where else None
    spare = data.draw(st.integers(0, 5))
    length = ids.numel() + experts * (block - 1)
    order, blocks, total, scatter = (
        int32(length + spare),
        int32(length // block + 1 + spare),
        int32(1),
        int32(tokens, topk),
    )
    moe.moe_align_block_size(
        ids,
        experts,
        block,
        order,
        blocks,
        total,
        torch.tensor(where, dtype=torch.int32) if where else None,
        scatter,
    )
    flat = ids.reshape(-1).tolist()
    want, want_blocks = align_reference(flat, experts, block, where)
    assert total.item() == len(want)
    assert order.tolist() == want + [len(flat)] * (len(order) - len(want))
    assert blocks.tolist() == want_blocks + [-1] * (len(blocks) - len(want_blocks))
    taken = {route for route in want if route < len(flat)}
    assert scatter.reshape(-1).tolist() == [i if i in taken else -1 for i in range(len(flat))]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        CONTENTS(
            {0: torch.tensor([[0, -2]])},
            r"topk_ids\[0, 1\] is -2, expected an expert below 3, or -1 or 3 for no expert",
        ),
        CONTENTS({0: torch.tensor([[0, 4]])}, r"topk_ids\[0, 1\] is 4, expected an expert below 3"),
        ({0: torch.tensor([0, 1])}, r"topk_ids has shape \[2\], expected \[tokens, topk\]"),
        ({2: 0}, "block_size is 0, expected at least 1"),
        CONTENTS({3: int32(3)}, "sorted_token_ids has 3 elements, expected at least 4"),
        CONTENTS({4: int32(1)}, "experts_ids has 1 elements, expected at least 2"),
        ({4: int32(4, 1)}, r"experts_ids has shape \[4, 1\], expected one dimension"),
        ({6: int32(2)}, "maybe_expert_map has 2 elements, expected at least 3"),
        CONTENTS(
            {6: torch.tensor([0, 3, 1]).int()},
            r"maybe_expert_map\[1\] is 3, expected -1 or a number below num_experts 3",
        ),
        (
            {7: int32(3)},
            "scatter_idx has 3 elements, expected 2, the number of elements of topk_ids",
        ),
    ],
)
def test_bad_align_arguments_write_nothing(moe: Any, changed: dict[int, Any], message: str) -> None:
    arguments = [torch.tensor([[0, 2]]), 3, 2, int32(8), int32(4), int32(1), None, int32(2)]
    for position, value in changed.items():
        arguments[position] = value
    written = [arguments[i].clone() for i in (3, 4, 5, 7)]
    with pytest.raises(RuntimeError, match=f"^moe_align_block_size: {message}"):
        moe.moe_align_block_size(*arguments)
    assert all(
        torch.equal(arguments[i], before) for i, before in zip((3, 4, 5, 7), written, strict=True)
    )


@given(counts=st.lists(st.integers(0, 13), max_size=6), block=st.integers(1, 9))
def test_batched_align(moe: Any, counts: list[int], block: int) -> None:
    blocks_each = -(-13 // block)
    order, blocks, total = (
        int32(len(counts) * blocks_each * block),
        int32(len(counts) * blocks_each),
        int32(1),
    )
    moe.batched_moe_align_block_size(
        13, block, torch.tensor(counts, dtype=torch.int32), order, blocks, total
    )
    want, want_blocks = [], []
    for expert, count in enumerate(counts):
        used = -(-count // block)
        want += [expert * 13 + i for i in range(count)] + [len(counts) * 13] * (
            used * block - count
        )
        want_blocks += [expert] * used
    assert total.item() == len(want)
    assert order.tolist() == want + [len(counts) * 13] * (len(order) - len(want))
    assert blocks.tolist() == want_blocks + [-1] * (len(blocks) - len(want_blocks))


@pytest.mark.contents
def test_bad_batched_counts(moe: Any) -> None:
    with pytest.raises(
        RuntimeError, match=r"expert_num_tokens\[1\] is 5, expected 0 to max_tokens_per_batch 4"
    ):
        moe.batched_moe_align_block_size(
            4, 2, torch.tensor([1, 5], dtype=torch.int32), int32(8), int32(4), int32(1)
        )


def test_bad_batched_align_arguments(moe: Any) -> None:
    with pytest.raises(RuntimeError, match="sorted_token_ids has 7 elements, expected at least 8"):
        moe.batched_moe_align_block_size(
            4, 2, torch.tensor([1, 4], dtype=torch.int32), int32(7), int32(4), int32(1)
        )
    with pytest.raises(RuntimeError, match="expected a number that fits into int32"):
        moe.batched_moe_align_block_size(
            2**31, 2, torch.tensor([1, 4], dtype=torch.int32), int32(8), int32(4), int32(1)
        )
