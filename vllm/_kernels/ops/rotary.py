# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace

if TYPE_CHECKING:
    import torch

_C = namespace("_C")


def rotary_embedding(
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor | None,
    head_size: int,
    cos_sin_cache: torch.Tensor,
    is_neox: bool,  # noqa: FBT001 - upstream's signature, called by position
    rope_dim_offset: int = 0,
    inverse: bool = False,  # noqa: FBT001, FBT002 - upstream's signature, called by position
) -> None:
    """Rotary position embedding, in place.

    Pairs of a head's elements are rotated by an angle that grows with the token's position.

    With ``(cos, sin)`` of the token's position, each pair ``(a, b)`` becomes ``(a cos - b sin, b
    cos + a sin)``. A pair is elements ``i`` and ``i + rot_dim / 2`` of the rotated part (GPT-NeoX),
    or elements ``2 i`` and ``2 i + 1`` (GPT-J).

    Source: Su et al., RoFormer, 2021 (arXiv:2104.09864), section 3.2.

    Args:
        positions: ``[tokens]`` or ``[batch, seq]``, int64: rows of ``cos_sin_cache``. On a GPU,
            tokens with a position outside the cache stay unchanged.
        query: ``[..., heads * head_size]`` or ``[..., heads, head_size]`` with the leading
            dimensions of ``positions``; rotated.
        key: the same for the key heads; or None to rotate only the query.
        head_size: number of elements in a head.
        cos_sin_cache: ``[max_position, rot_dim]``: cosines in the first half of a row, sines in the
            second; ``rot_dim <= head_size``.
        is_neox: whether pairs are GPT-NeoX's; otherwise GPT-J's.
        rope_dim_offset: index of the first rotated element of a head; earlier ones stay unchanged.
        inverse: rotate by the negative angle, which undoes the rotation.
    """
    _C.rotary_embedding(
        positions, query, key, head_size, cos_sin_cache, is_neox, rope_dim_offset, inverse
    )
