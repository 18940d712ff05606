# SPDX-License-Identifier: Apache-2.0
"""Rotary embedding, alone and fused with the normalisation of queries and keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kernels.rowwise import EPSILON, rms
from kernels.workload import Workload, builds, rand, simple, size

if TYPE_CHECKING:
    from kernels.cases import Case

HEADS, KV_HEADS, HEAD, POSITIONS = 32, 8, 128, 8192


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, neox: bool) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1) if neox else (x[..., ::2], x[..., 1::2])
    turned = (a * cos - b * sin, b * cos + a * sin)
    return torch.cat(turned, dim=-1) if neox else torch.stack(turned, dim=-1).flatten(-2)


def _angles(dtype: torch.dtype) -> torch.Tensor:
    angle = torch.arange(POSITIONS)[:, None] / 10000 ** (torch.arange(0, HEAD, 2) / HEAD)
    return torch.cat((angle.cos(), angle.sin()), dim=-1).to(dtype)


@builds("rotary_embedding")
def _rotary(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens, neox = case.shape["tokens"], case.variant == "neox"
    query, key = rand(tokens, HEADS * HEAD, dtype=dtype), rand(tokens, KV_HEADS * HEAD, dtype=dtype)
    positions, cache = torch.randint(POSITIONS, (tokens,)), _angles(dtype)

    def in_torch(
        query: torch.Tensor, key: torch.Tensor, positions: torch.Tensor, cache: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        cos, sin = cache[positions].unsqueeze(1).chunk(2, dim=-1)
        return tuple(
            _rotate(x.view(tokens, -1, HEAD), cos, sin, neox=neox).reshape(x.shape)
            for x in (query, key)
        )

    arguments = (positions, query, key, HEAD, cache, neox)
    return simple(
        (name, "_C"),
        arguments,
        in_torch,
        (query, key, positions, cache),
        (query, key),
        reads=size(query, key),
    )


@builds("fused_qk_norm_rope")
def _qk_norm_rope(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens = case.shape["tokens"]
    qkv = rand(tokens, (HEADS + 2 * KV_HEADS) * HEAD, dtype=dtype)
    weights, positions, cache = (
        rand(2, HEAD, dtype=dtype),
        torch.randint(POSITIONS, (tokens,)),
        _angles(dtype),
    )

    def in_torch(
        qkv: torch.Tensor, weights: torch.Tensor, positions: torch.Tensor, cache: torch.Tensor
    ) -> tuple[torch.Tensor]:
        cos, sin = cache[positions].float().unsqueeze(1).chunk(2, dim=-1)
        heads = qkv.view(tokens, -1, HEAD)
        q, k, v = heads.split((HEADS, KV_HEADS, KV_HEADS), dim=1)
        q, k = (
            _rotate(rms(x.float(), w.float()), cos, sin, neox=True).to(dtype)
            for x, w in ((q, weights[0]), (k, weights[1]))
        )
        return (torch.cat((q, k, v), dim=1).view(tokens, -1),)

    arguments = (
        qkv,
        HEADS,
        KV_HEADS,
        KV_HEADS,
        HEAD,
        EPSILON,
        weights[0],
        weights[1],
        cache,
        True,
        positions,
    )
    touched = size(qkv) * (HEADS + KV_HEADS) // (HEADS + 2 * KV_HEADS)
    return simple(
        (name, "_C"),
        arguments,
        in_torch,
        (qkv, weights, positions, cache),
        (qkv,),
        reads=touched,
        writes=touched,
    )
