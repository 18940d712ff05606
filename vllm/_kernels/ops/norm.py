# SPDX-License-Identifier: Apache-2.0
"""Root mean square normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace

if TYPE_CHECKING:
    import torch

_C = namespace("_C")


def rms_norm(
    out: torch.Tensor,
    input: torch.Tensor,  # noqa: A002 - upstream's name
    weight: torch.Tensor | None,
    epsilon: float,
) -> None:
    """Root mean square normalisation over the last dimension.

    ``out = input / sqrt(mean(input**2) + epsilon) * weight``.

    Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019 (arXiv:1910.07467).

    Args:
        out: ``[..., hidden]``, overwritten.
        input: ``[..., hidden]``; any hidden size.
        weight: ``[hidden]``, or None for no scaling.
        epsilon: added to the mean square.
    """
    _C.rms_norm(out, input, weight, epsilon)


def fused_add_rms_norm(
    input: torch.Tensor,  # noqa: A002 - upstream's name
    residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
) -> None:
    """Add the input to the residual, then normalise the sum. Both tensors are overwritten.

    ``residual = input + residual``, then ``input = residual / sqrt(mean(residual**2) + epsilon) *
    weight``. The sum is rounded to the tensors' dtype before it is squared, so the result equals
    that of two separate ops.

    Source: Zhang and Sennrich, 2019 (arXiv:1910.07467).

    Args:
        input: ``[..., hidden]``, overwritten with the normalised sum.
        residual: ``[..., hidden]``, overwritten with the sum.
        weight: ``[hidden]``, or None for no scaling.
        epsilon: added to the mean square.
    """
    _C.fused_add_rms_norm(input, residual, weight, epsilon)
