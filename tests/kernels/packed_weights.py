# SPDX-License-Identifier: Apache-2.0
"""Packed weights and sizes for the tests of matrix products."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


#: Rows, depth, columns: below and above the sizes of registers, tiles, panels and blocks of rows,
#: depth and columns; empty.
SHAPES = [
    (1, 1, 1),
    (1, 5, 16),
    (2, 17, 33),
    (6, 64, 48),
    (7, 300, 15),
    (1, 5000, 150),
    (2, 70, 100),
    (3, 600, 72),
    (13, 600, 290),
    (97, 33, 65),
    (200, 270, 272),
    (5, 96, 70),
    (16, 64, 130),
    (40, 130, 64),
    (256, 4200, 20),
    (23, 11000, 120),  # every kind of tile, and several parts of the depth
    (0, 8, 8),
    (3, 0, 8),
    (3, 8, 0),
]


EPSILON = {torch.float32: 2**-23, torch.bfloat16: 2**-8, torch.float16: 2**-10}


@contextmanager
def packed(ops: Any, weight: torch.Tensor) -> Iterator[torch.Tensor]:
    number = ops.create_onednn_mm_handler(weight, 8)
    try:
        yield torch.tensor(number)
    finally:
        ops.release_dnnl_matmul_handler(number)


@contextmanager
def packed_int8(
    ops: Any,
    weight: torch.Tensor,
    scales: torch.Tensor,
    output: torch.dtype,
    *,
    dynamic: bool,
    azp: bool,
) -> Iterator[torch.Tensor]:
    number = ops.create_onednn_scaled_mm_handler(weight, scales, output, dynamic, azp, 8)
    try:
        yield torch.tensor(number)
    finally:
        ops.release_dnnl_matmul_handler(number)
