# SPDX-License-Identifier: Apache-2.0
"""The cache of DeepSeek's indexer keys.

A token has 128 float8 codes and one scale; blocks have 64 tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kernels.caches import OPS
from kernels.rowwise import FP8_MAX
from kernels.workload import FP8, Workload, builds, rand, simple, size

if TYPE_CHECKING:
    from kernels.cases import Case

WIDTH, BLOCK, SCALE = 128, 64, 4
SEQUENCES = 4


def _stored(k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and power-of-two scales, both as bytes."""
    x = k.float()
    scale = (x.abs().amax(-1, keepdim=True).clamp(1e-4) / FP8_MAX).log2().ceil().exp2()
    return (x / scale).to(FP8).view(torch.uint8), scale.view(torch.uint8)


def _parts(cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Views of the codes, [blocks, BLOCK, WIDTH], and the scales, [blocks, BLOCK, SCALE].

    In a block, the codes come first.
    """
    blocks = cache.view(cache.shape[0], -1)
    return blocks[:, : BLOCK * WIDTH].unflatten(1, (BLOCK, WIDTH)), blocks[
        :, BLOCK * WIDTH :
    ].unflatten(1, (BLOCK, SCALE))


@builds("indexer_k_quant_and_cache")
def _write(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens = case.shape["tokens"]
    k, blocks = rand(tokens, WIDTH, dtype=dtype), 2 * max(1, tokens // BLOCK)
    cache, slots = (
        torch.zeros(blocks, BLOCK, WIDTH + SCALE, dtype=torch.uint8),
        torch.randperm(blocks * BLOCK)[:tokens],
    )

    def in_torch(k: torch.Tensor, slots: torch.Tensor) -> tuple[torch.Tensor]:
        for part, new in zip(_parts(cache), _stored(k), strict=True):
            part[slots // BLOCK, slots % BLOCK] = new
        return (cache,)

    more = {
        "reads": size(k),
        "writes": tokens * (WIDTH + SCALE),
        "no_compile": "the PyTorch code writes in place too",
    }
    return simple(
        (name, OPS), (k, cache, slots, WIDTH, "ue8m0"), in_torch, (k, slots), (cache,), **more
    )


@builds("cp_gather_indexer_k_quant_cache")
def _gather(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens = case.shape["tokens"]
    # Each sequence has whole blocks, so the table is full.
    each = max(1, tokens // SEQUENCES // BLOCK)
    total = each * SEQUENCES * BLOCK
    cache = torch.empty(total // BLOCK, BLOCK, WIDTH + SCALE, dtype=torch.uint8)
    for part, new in zip(_parts(cache), _stored(rand(total, WIDTH, dtype=dtype)), strict=True):
        part.copy_(new.view(part.shape))
    table = torch.randperm(total // BLOCK).int().view(SEQUENCES, each)
    starts = torch.arange(0, total + 1, each * BLOCK, dtype=torch.int32)
    codes, scales = (
        torch.empty(total, WIDTH, dtype=FP8),
        torch.empty(total, SCALE, dtype=torch.uint8),
    )

    def in_torch(cache: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = [part[table.flatten()].flatten(0, 1) for part in _parts(cache)]
        return found[0].view(FP8), found[1]

    return simple(
        (name, OPS),
        (cache, codes, scales, table, starts),
        in_torch,
        (cache, table),
        (codes, scales),
        reads=size(cache),
    )
