# SPDX-License-Identifier: Apache-2.0
"""Sample calls of the matrix products; tests/package/test_custom_ops.py describes the format."""

from __future__ import annotations

from functools import cache

import torch

_WEIGHT = torch.linspace(-1, 1, 28).view(4, 7)
_INT8 = torch.arange(-14, 14, dtype=torch.int8).view(4, 7)
_SCALES = torch.linspace(0.1, 0.2, 7)


@cache
def _packed() -> int:
    """The same number for every call, because it is compared too."""
    number: int = torch.ops._C.create_onednn_mm_handler(_WEIGHT, 8)
    return number


@cache
def _packed_int8() -> int:
    number: int = torch.ops._C.create_onednn_scaled_mm_handler(
        _INT8, _SCALES, torch.float32, True, True, 8
    )
    return number


def _scaled(
    _c: torch.Tensor, a: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, *_rest: object
) -> dict[int, torch.Tensor]:
    exact = (a.double() - zero.view(-1, 1)) @ _INT8.double()
    return {0: (exact * scale.view(-1, 1) * _SCALES).float()}


SAMPLES = {
    "create_onednn_mm_handler": (lambda: (_WEIGHT, 8), lambda *_: {}),
    "create_onednn_scaled_mm_handler": (
        lambda: (_INT8, _SCALES, torch.float32, True, True, 8),
        lambda *_: {},
    ),
    "release_dnnl_matmul_handler": (
        lambda: (torch.ops._C.create_onednn_mm_handler(_WEIGHT, 8),),
        lambda *_: {},
    ),
    "onednn_mm": (
        lambda: (torch.empty(3, 7), torch.randn(3, 4), torch.randn(7), torch.tensor(_packed())),
        lambda _c, a, bias, _handle: {0: a @ _WEIGHT + bias},
    ),
    "onednn_scaled_mm": (
        lambda: (
            torch.empty(3, 7),
            torch.randint(-128, 128, (3, 4), dtype=torch.int8),
            torch.rand(3),
            torch.tensor([5, -300, 0], dtype=torch.int32),
            None,
            None,
            torch.tensor(_packed_int8()),
        ),
        _scaled,
    ),
}
