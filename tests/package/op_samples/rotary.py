# SPDX-License-Identifier: Apache-2.0
"""Sample calls of the rotary embedding; tests/package/test_custom_ops.py describes the format."""

from __future__ import annotations

import torch


def _arguments() -> tuple[object, ...]:
    angle = torch.randn(7, 4)
    cache = torch.cat((angle.cos(), angle.sin()), dim=-1)
    return torch.tensor([2, 0, 6]), torch.randn(3, 2 * 8), torch.randn(3, 8), 8, cache, True


def _reference(
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    head: int,
    cache: torch.Tensor,
    _neox: bool,  # noqa: FBT001 - the op's signature
) -> dict[int, torch.Tensor]:
    def rotate(flat: torch.Tensor) -> torch.Tensor:
        cos, sin = cache[positions].unsqueeze(1).chunk(2, dim=-1)
        a, b = flat.view(len(positions), -1, head).chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).view_as(flat)

    return {1: rotate(query), 2: rotate(key)}


SAMPLES = {"rotary_embedding": (_arguments, _reference)}
