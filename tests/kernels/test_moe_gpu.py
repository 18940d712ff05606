# SPDX-License-Identifier: Apache-2.0
"""GPU ops for experts skip experts that do not exist and routes beyond short lists."""

from __future__ import annotations

from typing import Any

import pytest
import torch


def int32(*shape: int) -> torch.Tensor:
    return torch.full(shape, 77, dtype=torch.int32)


@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
def test_routes_to_no_expert(moe: Any, index: torch.dtype) -> None:
    ids = torch.tensor([[0, -2], [4, 2], [2**31 - 1, -(2**31)]]).to(index)
    order, blocks, total, scatter = int32(8), int32(4), int32(1), int32(6)
    moe.moe_align_block_size(ids, 3, 2, order, blocks, total, None, scatter)
    assert (order.tolist(), blocks.tolist(), total.item()) == (
        [0, 6, 3, 6, 6, 6, 6, 6],
        [0, 2, -1, -1],
        4,
    )
    assert scatter.tolist() == [0, -1, -1, 3, -1, -1]
    where = torch.tensor([3, -7, 1], dtype=torch.int32)
    moe.moe_align_block_size(ids, 3, 2, order, blocks, total, where, scatter)
    assert (order.tolist(), blocks.tolist(), total.item()) == (
        [3, 6, 6, 6, 6, 6, 6, 6],
        [1, -1, -1, -1],
        2,
    )


@pytest.mark.parametrize(("room", "blocks"), [(3, 4), (8, 1)])
def test_blocks_without_room(moe: Any, room: int, blocks: int) -> None:
    """Only the first block fits; memory after the lists stays unchanged."""
    order, experts, total = int32(12), int32(6), int32(1)
    moe.moe_align_block_size(
        torch.tensor([[0, 2]]), 3, 2, order[:room], experts[:blocks], total, None
    )
    assert total.item() == 2
    assert order[:2].tolist() == [0, 2]
    assert experts[0].item() == 0
    assert (order[room:] == 77).all()
    assert (experts[blocks:] == 77).all()


def test_counts_outside_the_capacity(moe: Any) -> None:
    order, blocks, total = int32(12), int32(6), int32(1)
    moe.batched_moe_align_block_size(
        4, 2, torch.tensor([-5, 9, 1], dtype=torch.int32), order, blocks, total
    )
    assert (order.tolist(), blocks.tolist(), total.item()) == (
        [4, 5, 6, 7, 8, *[12] * 7],
        [1, 1, 2, -1, -1, -1],
        6,
    )


def test_sum_without_experts_that_do_not_exist(moe: Any) -> None:
    x, out = torch.ones(2, 3, 8), torch.empty(2, 8)
    ids = torch.tensor([[0, 4, -9], [3, 2**31 - 1, 1]], dtype=torch.int32)
    moe.moe_sum(x, out, ids, torch.tensor([0, 5, -1, 2], dtype=torch.int32))
    assert out[:, 0].tolist() == [1, 2]


def test_many_routes(moe: Any) -> None:
    """All warps of a block need several rounds of routes and of sums."""
    ids = torch.randint(-1, 1500, (700, 9))
    order, blocks, total = int32(6300 + 1499 * 3), int32(3000), int32(1)
    moe.moe_align_block_size(ids, 1499, 4, order, blocks, total, None)
    flat = ids.flatten()
    sizes = torch.bincount(flat[(flat >= 0) & (flat < 1499)], minlength=1499)
    assert total.item() == int(((sizes + 3) // 4 * 4).sum())
    taken = order[order < 6300].long()
    assert torch.equal(
        taken, torch.tensor([r for r in flat.argsort(stable=True).tolist() if 0 <= flat[r] < 1499])
    )
    assert torch.equal(
        blocks[: total.item() // 4].long(), torch.arange(1499).repeat_interleave((sizes + 3) // 4)
    )
