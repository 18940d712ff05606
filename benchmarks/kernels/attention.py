# SPDX-License-Identifier: Apache-2.0
"""Attention over a paged cache, and related ops.

There are 32 query heads and 8 heads of keys and values, each with 128 elements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from kernels.workload import Workload, builds, op, rand, simple, size

if TYPE_CHECKING:
    from kernels.cases import Case

HEADS, KV_HEADS, HEAD, BLOCK = 32, 8, 128, 32
#: The layout that upstream chooses for blocks of 32 on CPUs without AMX.
ISA = "vec"
#: DeepSeek's latent attention with a sixteenth of its heads: heads, latent part, rotary part,
#: tokens of a block.
MLA_HEADS, LATENT, ROPE, MLA_BLOCK = 8, 512, 64, 16
NOT_PAGED = "PyTorch calls one fused op on a contiguous cache; it has no pages"


def batch_of(case: Case) -> tuple[list[int], list[int]]:
    """Query lengths and context lengths of the sequences."""
    if case.variant == "prefill":
        return [case.shape["tokens"]], [case.shape["context"]]
    return [1] * case.shape["batch"], [case.shape["context"]] * case.shape["batch"]


def sdpa(lengths: list[int], context: int) -> Any:
    """The same attention in PyTorch's fused op (SDPA).

    It needs contiguous keys and sequences of equal lengths.
    """
    sequences, queries = len(lengths), lengths[0]

    def in_torch(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor]:
        q = query.view(sequences, queries, HEADS, HEAD).transpose(1, 2)
        k, v = (x.view(sequences, context, KV_HEADS, HEAD).transpose(1, 2) for x in (key, value))
        mask = None
        if queries not in (1, context):
            mask = torch.ones(queries, context, dtype=torch.bool, device=query.device).tril(
                context - queries
            )
        causal = queries == context
        result = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, scale=HEAD**-0.5, enable_gqa=True
        )
        return (result.transpose(1, 2).reshape(query.shape),)

    return in_torch


def flops(lengths: list[int], contexts: list[int]) -> float:
    """Floating-point operations of causal attention."""
    # Number of visible keys, summed over the queries.
    pairs = sum(n * c - n * (n - 1) // 2 for n, c in zip(lengths, contexts, strict=True))
    return 4.0 * pairs * HEADS * HEAD


def _metadata(
    lengths: list[int], contexts: list[int], dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, Any]:
    starts = torch.tensor([0, *lengths]).cumsum(0).int()
    seq_lens = torch.tensor(contexts, dtype=torch.int32)
    arguments = (
        len(lengths),
        HEADS,
        KV_HEADS,
        HEAD,
        seq_lens,
        dtype,
        starts,
        True,
        -1,
        ISA,
        True,
        None,
    )
    return starts, seq_lens, arguments


@builds("get_scheduler_metadata")
def _scheduler(name: str, case: Case, dtype: torch.dtype) -> Workload:
    _, seq_lens, arguments = _metadata(*batch_of(case), dtype)

    def bind() -> Any:
        function = op(name)
        return lambda: function(*arguments)

    return Workload(
        bind, lambda _: (), (seq_lens,), no_torch="the result is private to the library"
    )


def _blocks(contexts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """A block table with blocks in random order, and the slot of every token."""
    per_sequence = max(contexts) // BLOCK
    table = torch.randperm(per_sequence * len(contexts)).int().view(len(contexts), per_sequence)
    slots = (table.long()[:, :, None] * BLOCK + torch.arange(BLOCK)).view(-1)
    return table, slots


@builds("cpu_attn_reshape_and_cache")
def _reshape(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens, blocks = case.shape["tokens"], 2 * max(1, case.shape["tokens"] // BLOCK)
    key, value = (
        rand(tokens, KV_HEADS, HEAD, dtype=dtype),
        rand(tokens, KV_HEADS, HEAD, dtype=dtype),
    )
    caches = torch.zeros(2, blocks, KV_HEADS, BLOCK, HEAD, dtype=dtype)
    slots = torch.randperm(blocks * BLOCK)[:tokens]

    def in_torch(key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> tuple[()]:
        for cache, new in zip(caches, (key, value), strict=True):
            cache.transpose(1, 2)[slots // BLOCK, slots % BLOCK] = new
        return ()

    arguments = (key, value, caches[0], caches[1], slots, ISA)
    private = "the layout inside a block is private to the library"
    more = {"reads": size(key, value), "writes": size(key, value), "unchecked": private}
    return simple((name, "_C"), arguments, in_torch, (key, value, slots), (), **more)


@builds("cpu_attention_with_kv_cache")
def _attend(name: str, case: Case, dtype: torch.dtype) -> Workload:
    lengths, contexts = batch_of(case)
    context, scale = contexts[0], HEAD**-0.5
    query = rand(sum(lengths), HEADS, HEAD, dtype=dtype)
    key, value = (rand(len(lengths) * context, KV_HEADS, HEAD, dtype=dtype) for _ in range(2))
    table, slots = _blocks(contexts)
    out = torch.empty_like(query)

    def bind() -> Any:
        function = op(name)
        starts, seq_lens, arguments = _metadata(lengths, contexts, dtype)
        metadata = op("get_scheduler_metadata")(*arguments)
        caches = torch.zeros(2, table.numel(), KV_HEADS, BLOCK, HEAD, dtype=dtype)
        op("cpu_attn_reshape_and_cache")(key, value, caches[0], caches[1], slots, ISA)
        return lambda: function(
            query,
            caches[0],
            caches[1],
            out,
            starts,
            seq_lens,
            scale,
            True,
            None,
            -1,
            table,
            0.0,
            metadata,
            None,
            None,
        )

    return Workload(
        bind,
        sdpa(lengths, context),
        (query, key, value),
        (out,),
        size(query, key, value),
        size(out),
        flops=flops(lengths, contexts),
        no_compile=NOT_PAGED,
        cold=True,
        slack=4.0,  # with 16 bits, implementations round the probabilities differently
    )


@builds("mla_decode_kvcache")
def _mla(name: str, case: Case, dtype: torch.dtype) -> Workload:
    batch, context, width = case.shape["batch"], case.shape["context"], LATENT + ROPE
    query = rand(batch, MLA_HEADS, width, dtype=dtype)
    cache = rand(batch * context // MLA_BLOCK, MLA_BLOCK, width, dtype=dtype)
    table = torch.arange(batch * context // MLA_BLOCK, dtype=torch.int32).view(batch, -1)
    seq_lens, out, scale = (
        torch.full((batch,), context, dtype=torch.int32),
        torch.empty(batch, MLA_HEADS, LATENT, dtype=dtype),
        width**-0.5,
    )

    def in_torch(query: torch.Tensor, cache: torch.Tensor) -> tuple[torch.Tensor]:
        keys = cache.view(batch, context, width)
        scores = torch.matmul(query, keys.transpose(1, 2)).float() * scale
        return (torch.matmul(scores.softmax(-1).to(dtype), keys[..., :LATENT]),)

    arguments = (out, query, cache, scale, table, seq_lens)
    operations = 2.0 * batch * context * MLA_HEADS * (width + LATENT)
    return simple(
        (name, "_C"),
        arguments,
        in_torch,
        (query, cache),
        (out,),
        flops=operations,
        no_compile=NOT_PAGED,
        cold=True,
        slack=4.0,
    )


@builds("merge_attn_states")
def _merge(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens = case.shape["tokens"]
    first, second = rand(tokens, HEADS, HEAD, dtype=dtype), rand(tokens, HEADS, HEAD, dtype=dtype)
    first_lse, second_lse = torch.randn(HEADS, tokens), torch.randn(HEADS, tokens)
    out, lse = torch.empty_like(first), torch.empty_like(first_lse)

    def in_torch(
        a: torch.Tensor, a_lse: torch.Tensor, b: torch.Tensor, b_lse: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        total = torch.logaddexp(a_lse, b_lse)
        wa, wb = ((x - total).exp().t().unsqueeze(-1) for x in (a_lse, b_lse))
        return (a.float() * wa + b.float() * wb).to(dtype), total

    arguments = (out, lse, first, first_lse, second, second_lse, None)
    return simple(
        (name, "_C"), arguments, in_torch, (first, first_lse, second, second_lse), (out, lse)
    )
