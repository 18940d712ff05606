# SPDX-License-Identifier: Apache-2.0
"""Ops on paged key and value caches, and sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kernels.workload import FP8, Workload, builds, op, rand, simple, size

if TYPE_CHECKING:
    from kernels.cases import Case

OPS = "_C_cache_ops"
KV_HEADS, HEAD, BLOCK = 8, 128, 16
LATENT, ROPE = 512, 64
COPIES = "a compiler cannot improve a copy"


def _slots(tokens: int) -> tuple[int, torch.Tensor]:
    """Number of blocks of a cache twice as large as needed, and a random slot for each token."""
    blocks = 2 * max(1, tokens // BLOCK)
    return blocks, torch.randperm(blocks * BLOCK)[:tokens]


@builds("reshape_and_cache", "reshape_and_cache_flash")
def _reshape(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens = case.shape["tokens"]
    blocks, slots = _slots(tokens)
    key, value = (
        rand(tokens, KV_HEADS, HEAD, dtype=dtype),
        rand(tokens, KV_HEADS, HEAD, dtype=dtype),
    )
    one = torch.ones(1)
    if name == "reshape_and_cache_flash":
        keys, values = (torch.zeros(blocks, BLOCK, KV_HEADS, HEAD, dtype=dtype) for _ in range(2))
    else:
        x = 16 // dtype.itemsize
        keys = torch.zeros(blocks, KV_HEADS, HEAD // x, BLOCK, x, dtype=dtype)
        values = torch.zeros(blocks, KV_HEADS, HEAD, BLOCK, dtype=dtype)

    def in_torch(
        key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        block, place = slots // BLOCK, slots % BLOCK
        if name == "reshape_and_cache_flash":
            keys[block, place], values[block, place] = key, value
        else:
            keys[block, :, :, place] = key.view(tokens, KV_HEADS, -1, 16 // dtype.itemsize)
            values[block, :, :, place] = value
        return keys, values

    arguments = (key, value, keys, values, slots, "auto", one, one)
    more = {
        "reads": size(key, value),
        "writes": size(key, value),
        "no_compile": "the PyTorch code writes in place too",
    }
    return simple((name, OPS), arguments, in_torch, (key, value, slots), (keys, values), **more)


@builds("concat_and_cache_mla")
def _concat(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens = case.shape["tokens"]
    blocks, slots = _slots(tokens)
    latent, rope = rand(tokens, LATENT, dtype=dtype), rand(tokens, ROPE, dtype=dtype)
    cache = torch.zeros(blocks, BLOCK, LATENT + ROPE, dtype=dtype)

    def in_torch(
        latent: torch.Tensor, rope: torch.Tensor, slots: torch.Tensor
    ) -> tuple[torch.Tensor]:
        cache.view(-1, LATENT + ROPE)[slots] = torch.cat((latent, rope), dim=-1)
        return (cache,)

    arguments = (latent, rope, cache, slots, "auto", torch.ones(1))
    more = {
        "reads": size(latent, rope),
        "writes": size(latent, rope),
        "no_compile": "the PyTorch code writes in place too",
    }
    return simple((name, OPS), arguments, in_torch, (latent, rope, slots), (cache,), **more)


@builds("gather_and_maybe_dequant_cache", "cp_gather_cache")
def _gather(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens, sequences = case.shape["tokens"], 4
    each = tokens // sequences
    cache = rand(tokens // BLOCK, BLOCK, LATENT + ROPE, dtype=dtype)
    table = torch.randperm(tokens // BLOCK).int().view(sequences, -1)
    starts = torch.arange(0, tokens + 1, each, dtype=torch.int32)
    out = torch.empty(tokens, LATENT + ROPE, dtype=dtype)
    if name == "cp_gather_cache":
        arguments: tuple[Any, ...] = (cache, out, table, starts, sequences, None)
    else:
        owners = torch.arange(sequences, dtype=torch.int32).repeat_interleave(each)
        arguments = (cache, out, table, starts, owners, tokens, "auto", torch.ones(1), None)

    def in_torch(cache: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor]:
        return (cache[table.flatten()].view(tokens, -1),)

    return simple((name, OPS), arguments, in_torch, (cache, table), (out,), reads=size(cache))


@builds("swap_blocks", "swap_blocks_batch")
def _swap(name: str, case: Case, dtype: torch.dtype) -> Workload:
    blocks = case.shape["blocks"]
    source = rand(blocks, BLOCK, KV_HEADS, HEAD, dtype=dtype)
    target = torch.empty_like(source)
    # The host must know the mapping of blocks, even on a GPU.
    order, numbers = torch.randperm(blocks, device="cpu"), torch.arange(blocks, device="cpu")
    each = size(source) // blocks
    if name == "swap_blocks":
        arguments: tuple[Any, ...] = (source, target, each, torch.stack((numbers, order), dim=1))
    else:
        sizes = torch.full((blocks,), each, dtype=torch.int64, device="cpu")
        arguments = (source.data_ptr() + numbers * each, target.data_ptr() + order * each, sizes)

    def in_torch(source: torch.Tensor, order: torch.Tensor) -> tuple[torch.Tensor]:
        target[order] = source
        return (target,)

    more = {"reads": size(source), "no_compile": COPIES}
    return simple(
        (name, OPS), arguments, in_torch, (source, order.to(source.device)), (target,), **more
    )


@builds("convert_fp8")
def _convert(name: str, case: Case, dtype: torch.dtype) -> Workload:
    source = rand(case.shape["blocks"], BLOCK, KV_HEADS, HEAD, dtype=dtype)
    target = torch.empty(source.shape, dtype=torch.uint8)

    def in_torch(source: torch.Tensor) -> tuple[torch.Tensor]:
        return (source.to(FP8).view(torch.uint8),)

    return simple((name, OPS), (target, source, 1.0, "fp8"), in_torch, (source,), (target,))


@builds("greedy_argmax", "fused_gumbel_argmax")
def _sample(name: str, case: Case, dtype: torch.dtype) -> Workload:
    logits = rand(case.shape["batch"], case.shape["vocabulary"], dtype=dtype)
    seeds = torch.randint(2**31, (case.shape["batch"],))
    greedy = name == "greedy_argmax"
    arguments = (logits,) if greedy else (logits, seeds)

    def bind() -> Any:
        function = op(name)
        return lambda: function(*arguments)

    def in_torch(logits: torch.Tensor) -> tuple[torch.Tensor]:
        if greedy:
            return (logits.argmax(-1),)
        return (logits.softmax(-1).div_(torch.empty_like(logits).exponential_()).argmax(-1),)

    return Workload(
        bind,
        in_torch,
        (logits,),
        reads=size(logits),
        unchecked="" if greedy else "implementations draw different random numbers",
    )
