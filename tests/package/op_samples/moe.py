# SPDX-License-Identifier: Apache-2.0
"""Sample calls of the MoE ops; tests/package/test_custom_ops.py describes the format."""

from __future__ import annotations

from typing import Any

import torch


def _int(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def _outputs() -> tuple[torch.Tensor, ...]:
    return (
        torch.empty(3, 2),
        torch.empty(3, 2, dtype=torch.int32),
        torch.empty(3, 2, dtype=torch.int32),
    )


def _routed(scores: torch.Tensor, bias: torch.Tensor, factor: float) -> dict[int, torch.Tensor]:
    experts = (scores + bias).topk(2).indices
    weights = scores.gather(1, experts)
    positions = torch.arange(6, dtype=torch.int32).view(2, 3).t()
    return {0: weights / weights.sum(-1, keepdim=True) * factor, 1: experts.int(), 2: positions}


def _grouped(*args: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    scores = args[0].sigmoid()
    kept = scores.view(3, 2, 4).topk(2).values.sum(-1).argmax(-1)
    inside = torch.arange(8).view(1, 8) // 4 == kept.view(3, 1)
    weights, experts = scores.masked_fill(~inside, -1).topk(2)
    return {"return": (weights * 2.5, experts.int())}


def _experts() -> tuple[Any, ...]:
    packed = []
    for weight in (torch.randn(3, 8, 5), torch.randn(3, 5, 4)):
        memory = torch.empty_like(weight)
        # A panel has up to 16 outputs; here each expert has one panel, stored input by input.
        memory.view(3, -1).copy_(weight.transpose(1, 2).reshape(3, -1))
        packed.append(memory)
    return (
        torch.empty(2, 5),
        torch.randn(2, 5),
        *packed,
        None,
        None,
        torch.rand(2, 2),
        torch.tensor([[2, 0], [1, 2]]),
        False,
        "silu",
        "vec",
    )


def _experts_sum(
    _out: torch.Tensor, x: torch.Tensor, w13: torch.Tensor, w2: torch.Tensor, *rest: Any
) -> dict[int, torch.Tensor]:
    weights, ids = rest[2], rest[3]
    gate, up = (x @ w13.view(3, 5, 8)).chunk(2, dim=-1)
    rows = (torch.nn.functional.silu(gate) * up) @ w2.view(3, 4, 5)
    return {0: (rows[ids, torch.arange(2).view(2, 1)] * weights.unsqueeze(-1)).sum(1)}


SAMPLES = {
    "prepack_moe_weight": (
        lambda: (torch.randn(2, 3, 4), torch.empty(2, 3, 4), "vec"),
        lambda weight, _packed, _isa: {1: weight.transpose(1, 2).reshape(2, 3, 4)},
    ),
    "cpu_fused_moe": (_experts, _experts_sum),
    "topk_softmax": (
        lambda: (*_outputs(), torch.randn(3, 8), True, torch.randn(8), None),
        lambda *args: _routed(args[3].softmax(-1), args[5], 1.0),
    ),
    "topk_sigmoid": (
        lambda: (*_outputs(), torch.randn(3, 8), True, torch.randn(8), 2.5, None),
        lambda *args: _routed(args[3].sigmoid(), args[5], 2.5),
    ),
    "grouped_topk": (lambda: (torch.randn(3, 8), 2, 1, 2, False, 2.5, torch.zeros(8), 1), _grouped),
    "moe_align_block_size": (
        lambda: (
            torch.tensor([[2, 0], [0, 1]]),
            3,
            2,
            _int(*[9] * 8),
            _int(*[9] * 4),
            _int(9),
            None,
            _int(9, 9, 9, 9),
        ),
        lambda *_: {
            3: _int(1, 2, 3, 4, 0, 4, 4, 4),
            4: _int(0, 1, 2, -1),
            5: _int(6),
            7: _int(0, 1, 2, 3),
        },
    ),
    "batched_moe_align_block_size": (
        lambda: (3, 2, _int(1, 0, 3), _int(*[9] * 12), _int(*[9] * 6), _int(9)),
        lambda *_: {
            3: _int(0, 9, 6, 7, 8, 9, 9, 9, 9, 9, 9, 9),
            4: _int(0, 2, 2, -1, -1, -1),
            5: _int(6),
        },
    ),
    "moe_sum": (lambda: (torch.randn(3, 2, 5), torch.empty(3, 5)), lambda x, _out: {1: x.sum(1)}),
}
