# SPDX-License-Identifier: Apache-2.0
"""Conversion of arguments for the ops of FlashAttention 2 and 3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


def refuse(version: int, **given: Any) -> None:
    """Raise if an argument is given that this version does not support.

    Args:
        version: the version of FlashAttention.
        given: the arguments; None and False count as not given.

    Raises:
        NotImplementedError: names the arguments that are given.
    """
    named = [name for name, value in given.items() if value is not None and value is not False]
    if named:
        raise NotImplementedError(f"FlashAttention {version} does not take {', '.join(named)}")


def rows(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor whose last dimension is contiguous, as the kernels need it."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def optional_rows(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else rows(tensor)


def window_sides(window_size: Sequence[int] | None) -> tuple[int, int]:
    if window_size is None:
        return -1, -1
    left, right = window_size
    return left, right
