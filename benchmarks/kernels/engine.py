# SPDX-License-Identifier: Apache-2.0
"""Ops of the engine: small weights, slots of tokens, and rejection sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from kernels.matmul import SAME
from kernels.workload import Workload, builds, op, rand, simple, size

if TYPE_CHECKING:
    from kernels.cases import Case

BLOCK = 16
#: Drafts of a request.
DRAFTS = 4


@builds("weight_packed_linear")
def _linear(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens, hidden, width = case.shape["tokens"], case.shape["hidden"], case.shape["out"]
    x = rand(tokens, hidden, dtype=dtype)
    weight = rand(width, hidden, dtype=dtype, scale=hidden**-0.5)
    out = torch.empty(tokens, width, dtype=dtype)

    def bind() -> Any:
        function, packed = op(name), op("convert_weight_packed")(weight)
        return lambda: function(out, x, packed, None, True)

    return Workload(
        bind,
        lambda x, w: (functional.linear(x, w),),
        (x, weight),
        (out,),
        size(x, weight),
        size(out),
        flops=2.0 * tokens * hidden * width,
        no_compile=SAME,
        cold=True,
    )


@builds("compute_slot_mapping_kernel_impl")
def _slots(name: str, case: Case, _dtype: torch.dtype) -> Workload:
    batch, context = case.shape["batch"], case.shape["context"]
    starts = torch.arange(0, batch * context + 1, context, dtype=torch.int32)
    positions = torch.arange(context).repeat(batch)
    table = torch.randint(2**20, (batch, context // BLOCK), dtype=torch.int32)
    slots = torch.empty(batch * context, dtype=torch.int64)
    request = torch.arange(batch).repeat_interleave(context)

    def in_torch(positions: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor]:
        blocks = table[request, positions // BLOCK].long()
        return (blocks * BLOCK + positions % BLOCK,)

    return simple(
        (name, "_C"),
        (starts, positions, table, slots, BLOCK),
        in_torch,
        (positions, table),
        (slots,),
    )


@builds("sample_recovered_tokens_kernel_impl")
def _recover(name: str, case: Case, dtype: torch.dtype) -> Workload:
    batch, vocabulary = case.shape["batch"], case.shape["vocabulary"]
    target, draft = (rand(batch * DRAFTS, vocabulary, dtype=dtype).softmax(-1) for _ in range(2))
    weights = torch.empty(batch, vocabulary, dtype=dtype).exponential_().reciprocal()
    tokens = torch.randint(vocabulary, (batch * DRAFTS,))
    ends, out = torch.arange(DRAFTS, batch * DRAFTS + 1, DRAFTS), torch.empty_like(tokens)

    def in_torch(
        target: torch.Tensor, draft: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor]:
        more = (target - draft).clamp_(min=0).view(batch, DRAFTS, vocabulary)
        return ((more * weights[:, None]).argmax(-1).flatten(),)

    return simple(
        (name, "_C"),
        (out, ends, tokens, draft, target, weights, vocabulary, False),
        in_torch,
        (target, draft, weights),
        (out,),
    )
