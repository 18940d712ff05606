# SPDX-License-Identifier: Apache-2.0
"""Mixture of experts: 2 of 8 experts per token, hidden size 4096, 1024 inside an expert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from kernels.workload import Workload, builds, op, rand, simple, size

if TYPE_CHECKING:
    from kernels.cases import Case

EXPERTS, TOP, HIDDEN, INSIDE, BLOCK = 8, 2, 4096, 1024, 16
#: DeepSeek's grouped choice: 8 of 256 experts, from 4 of 8 groups.
G_EXPERTS, GROUPS, TOP_GROUPS, G_TOP = 256, 8, 4, 8
NO_EQUAL = "PyTorch has no such op, and comparing with a loop in Python would be meaningless"


def _distinct(tokens: int, experts: int, dtype: torch.dtype) -> torch.Tensor:
    """Router logits without ties, even in bfloat16, so that the choice is unambiguous."""
    steps = torch.stack([torch.randperm(experts) for _ in range(tokens)])
    return (steps.float() * (4.0 / experts) - 2).to(dtype)


@builds("topk_softmax", "topk_sigmoid")
def _topk(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens = case.shape["tokens"]
    logits = _distinct(tokens, EXPERTS, dtype)
    weights = torch.empty(tokens, TOP)
    indices, rows = (
        torch.empty(tokens, TOP, dtype=torch.int32),
        torch.empty(tokens, TOP, dtype=torch.int32),
    )

    def in_torch(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = logits.float().softmax(-1) if name == "topk_softmax" else logits.float().sigmoid()
        weights, indices = scores.topk(TOP, dim=-1)
        return weights / weights.sum(-1, keepdim=True), indices.int()

    tail = (True, None, None) if name == "topk_softmax" else (True, None, 1.0, None)
    return simple(
        (name, "_moe_C"),
        (weights, indices, rows, logits, *tail),
        in_torch,
        (logits,),
        (weights, indices),
    )


@builds("grouped_topk")
def _grouped(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens = case.shape["tokens"]
    scores, bias = _distinct(tokens, G_EXPERTS, dtype), torch.zeros(G_EXPERTS, dtype=dtype)

    def bind() -> Any:
        function = op(name, "_moe_C")
        return lambda: function(scores, GROUPS, TOP_GROUPS, G_TOP, True, 1.0, bias, 1)

    def in_torch(scores: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        plain = scores.float().sigmoid()
        biased = plain + bias.float()
        groups = biased.view(tokens, GROUPS, -1).topk(2, dim=-1)[0].sum(-1)
        kept = torch.zeros_like(groups, dtype=torch.bool).scatter_(
            1, groups.topk(TOP_GROUPS, dim=-1)[1], value=True
        )
        masked = biased.masked_fill(~kept.repeat_interleave(G_EXPERTS // GROUPS, dim=1), -torch.inf)
        indices = masked.topk(G_TOP, dim=-1)[1]
        weights = plain.gather(1, indices)
        return weights / weights.sum(-1, keepdim=True), indices.int()

    return Workload(bind, in_torch, (scores, bias), reads=size(scores), writes=tokens * G_TOP * 8)


@builds("moe_align_block_size")
def _align(name: str, case: Case, dtype: torch.dtype) -> Workload:  # noqa: ARG001 - all builders have the same arguments
    tokens = case.shape["tokens"]
    ids = torch.stack([torch.randperm(EXPERTS)[:TOP] for _ in range(tokens)]).int()
    room = ids.numel() + EXPERTS * (BLOCK - 1)
    order, owners = (
        torch.empty(room, dtype=torch.int32),
        torch.empty(-(-room // BLOCK), dtype=torch.int32),
    )
    arguments = (ids, EXPERTS, BLOCK, order, owners, torch.empty(1, dtype=torch.int32), None)
    more = {"reads": size(ids), "writes": size(order, owners), "no_torch": NO_EQUAL}
    return simple((name, "_moe_C"), arguments, lambda _: (), (ids,), (), **more)


@builds("batched_moe_align_block_size")
def _batched_align(name: str, case: Case, dtype: torch.dtype) -> Workload:  # noqa: ARG001 - all builders have the same arguments
    tokens = case.shape["tokens"]
    counts = torch.randint(tokens + 1, (EXPERTS,), dtype=torch.int32)
    room = EXPERTS * -(-tokens // BLOCK) * BLOCK
    order, owners = (
        torch.empty(room, dtype=torch.int32),
        torch.empty(room // BLOCK, dtype=torch.int32),
    )
    arguments = (tokens, BLOCK, counts, order, owners, torch.empty(1, dtype=torch.int32))
    more = {"reads": size(counts), "writes": size(order, owners), "no_torch": NO_EQUAL}
    return simple((name, "_moe_C"), arguments, lambda _: (), (counts,), (), **more)


@builds("moe_sum")
def _sum(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens = case.shape["tokens"]
    x, out = rand(tokens, TOP, HIDDEN, dtype=dtype), torch.empty(tokens, HIDDEN, dtype=dtype)
    return simple((name, "_moe_C"), (x, out), lambda x: (x.sum(1),), (x,), (out,))


@builds("cpu_fused_moe")
def _fused(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens = case.shape["tokens"]
    x = rand(tokens, HIDDEN, dtype=dtype)
    w13, w2 = (
        rand(EXPERTS, 2 * INSIDE, HIDDEN, dtype=dtype, scale=HIDDEN**-0.5),
        rand(EXPERTS, HIDDEN, INSIDE, dtype=dtype, scale=INSIDE**-0.5),
    )
    ids = torch.stack([torch.randperm(EXPERTS)[:TOP] for _ in range(tokens)]).int()
    weights, out = torch.rand(tokens, TOP).softmax(-1), torch.empty_like(x)

    def bind() -> Any:
        function, pack = op(name), op("prepack_moe_weight")
        packed = [torch.empty_like(w) for w in (w13, w2)]
        for weight, target in zip((w13, w2), packed, strict=True):
            pack(weight, target, "vec")
        return lambda: function(
            out, x, packed[0], packed[1], None, None, weights, ids, False, "silu", "vec"
        )

    def in_torch(
        x: torch.Tensor,
        w13: torch.Tensor,
        w2: torch.Tensor,
        weights: torch.Tensor,
        ids: torch.Tensor,
    ) -> tuple[torch.Tensor]:
        total = torch.zeros(x.shape, dtype=torch.float32)
        for expert in range(EXPERTS):
            token, choice = (ids == expert).nonzero(as_tuple=True)
            if len(token):
                gate, up = functional.linear(x[token], w13[expert]).chunk(2, dim=-1)
                result = functional.linear(functional.silu(gate) * up, w2[expert])
                total.index_add_(0, token, result.float() * weights[token, choice, None])
        return (total.to(dtype),)

    used = len(ids.unique())
    return Workload(
        bind,
        in_torch,
        (x, w13, w2, weights, ids),
        (out,),
        size(x) + size(w13, w2) * used // EXPERTS,
        size(out),
        flops=2.0 * tokens * TOP * 3 * HIDDEN * INSIDE,
        no_compile="the choice depends on the data, so the compiler would break the graph",
        cold=True,
        slack=2.0,
    )
