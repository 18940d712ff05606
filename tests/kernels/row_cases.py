# SPDX-License-Identifier: Apache-2.0
"""Shapes and layouts for tests of ops that work on rows, and types of fixtures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import strategies as st

#: The fixture ``check`` compares a result with the exact one.
Check = Callable[[torch.Tensor, torch.Tensor], None]
#: The fixture ``strided`` makes a tensor with padded rows and permuted leading dimensions.
Strided = Callable[..., torch.Tensor]

#: Sizes below, at and above every vector length; one that is no multiple of a vector and needs two
#: threads; empty ones.
SHAPES: list[tuple[int, ...]] = [
    *[(1, 1), (1, 7), (3, 16), (5, 33), (83, 769), (7, 5125), (2, 4096), (1, 40001)],
    *[(0, 64), (4, 0)],
]
#: Examples of the leading dimensions, and of the padding of the rows of two tensors.
LEADING = st.lists(st.integers(1, 4), min_size=1, max_size=3)
PADS = st.tuples(st.integers(0, 9), st.integers(0, 9))


def orders(leading: list[int]) -> st.SearchStrategy[tuple[int, ...]]:
    """Orders in which the leading dimensions can lie in memory."""
    return st.permutations(range(len(leading))).map(tuple)
