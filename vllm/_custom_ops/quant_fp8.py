# SPDX-License-Identifier: Apache-2.0
"""Quantisation to eight-bit floating-point numbers.

Results are ``float8_e4m3fn`` or ``float8_e5m2``, rounded to nearest even and saturated at the
largest finite number, 448 or 57344; ``NaN`` stays ``NaN``. Scales are ``float32`` and are what a
number is divided by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._ops import namespace

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

_C = namespace("_C")


def static_scaled_fp8_quant(
    result: torch.Tensor,
    input: torch.Tensor,  # noqa: A002 - upstream's name
    scale: torch.Tensor,
    group_shape: Sequence[int] | None = None,
) -> None:
    """Quantise with given scales: ``result = input / scale``, by the reciprocal of the scale.

    The tensor is seen as a matrix of tokens (the leading dimensions) and columns that is cut into
    groups with a scale each.

    Source: Micikevicius et al., FP8 Formats for Deep Learning, 2022 (arXiv:2209.05433).

    Args:
        result: ``[..., d]``, ``float8_e4m3fn`` or ``float8_e5m2``, overwritten.
        input: ``[..., d]``.
        scale: ``float32``: one element; or ``[groups of tokens, groups of columns]``; or one
            dimension of these, if the other one is 1, and then with ``group_shape``.
        group_shape: tokens and columns of a group, -1 for all: ``(-1, 1)`` has a scale for each
            column, ``(1, -1)`` for each token, ``(1, 128)`` for 128 columns of each token. Groups
            must divide the matrix. Without it they are what the two dimensions of ``scale`` make of
            it.
    """
    _C.static_scaled_fp8_quant(result, input, scale, group_shape)


def dynamic_scaled_fp8_quant(
    result: torch.Tensor,
    input: torch.Tensor,  # noqa: A002 - upstream's name
    scale: torch.Tensor,
) -> None:
    """Quantise with one scale that is computed: ``scale = max(abs(input)) / m``, ``result = input / scale``, by its reciprocal.

    ``m`` is the largest finite number, 448 or 57344. ``NaN`` is left out of the maximum. Zeros give
    the scale 0 and zeros.

    Source: Micikevicius et al., 2022 (arXiv:2209.05433), section 3.2.

    Args:
        result: ``[..., d]``, ``float8_e4m3fn`` or ``float8_e5m2``, overwritten.
        input: ``[..., d]``.
        scale: ``float32``, one element, overwritten.
    """
    _C.dynamic_scaled_fp8_quant(result, input, scale)


def dynamic_per_token_scaled_fp8_quant(
    result: torch.Tensor,
    input: torch.Tensor,  # noqa: A002 - upstream's name
    scale: torch.Tensor,
    scale_ub: torch.Tensor | None,
) -> None:
    """Quantise every token with a scale of its own: ``scale = max(min(max(abs(input)), scale_ub) / m, 1 / (512 m))``.

    ``m`` is the largest finite number, 448 or 57344; ``result = input / scale``, correctly rounded.
    ``NaN`` is left out of the maximum.

    Source: Micikevicius et al., 2022 (arXiv:2209.05433), section 3.2; the least scale and the bound
        as in FBGEMM's row-wise quantisation.

    Args:
        result: ``[..., d]``, ``float8_e4m3fn`` or ``float8_e5m2``, overwritten.
        input: ``[..., d]``.
        scale: ``float32``, contiguous, an element for each token (or more, which stay),
            overwritten.
        scale_ub: ``float32``, one element: bound of the largest magnitude; what lies beyond it
            saturates. Or None.
    """
    _C.dynamic_per_token_scaled_fp8_quant(result, input, scale, scale_ub)
