# SPDX-License-Identifier: Apache-2.0
"""Quantisation to eight-bit floating-point numbers.

Results are ``float8_e4m3fn`` or ``float8_e5m2``, rounded to nearest, ties to even, and saturated at
the largest finite number, 448 or 57344. ``NaN`` stays ``NaN``. Scales are ``float32``; values are
divided by them.

On gfx942, whose instructions have that format, results are ``float8_e4m3fnuz`` in place of
``float8_e4m3fn``; ``vllm.platforms.current_platform.fp8_dtype()`` is the one of the two that the
device has, and the other one is an error. The largest number of ``float8_e4m3fnuz`` is 240. A scale
that an op finds puts the largest magnitude at 224 there, as upstream's ops and its Python do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace

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
    """Quantise with given scales: ``result = input / scale``, computed with the scale's reciprocal.

    The tensor is treated as a matrix of tokens (the leading dimensions) and columns. It is divided
    into groups, each with its own scale.

    Source: Micikevicius et al., FP8 Formats for Deep Learning, 2022 (arXiv:2209.05433).

    Args:
        result: ``[..., d]``, ``float8_e4m3fn`` or ``float8_e5m2``, overwritten.
        input: ``[..., d]``.
        scale: ``float32``: one element; or ``[groups of tokens, groups of columns]``; or, with
            ``group_shape``, only one of these dimensions if the other one is 1.
        group_shape: tokens and columns of a group, -1 for all: ``(-1, 1)`` has one scale for each
            column, ``(1, -1)`` one for each token, ``(1, 128)`` one for 128 columns of a token.
            Groups must divide the matrix evenly. None derives the groups from the two dimensions of
            ``scale``.
    """
    _C.static_scaled_fp8_quant(result, input, scale, group_shape)


def dynamic_scaled_fp8_quant(
    result: torch.Tensor,
    input: torch.Tensor,  # noqa: A002 - upstream's name
    scale: torch.Tensor,
) -> None:
    """Quantise with one computed scale.

    ``scale = max(abs(input)) / m`` and ``result = input / scale``, computed with the scale's
    reciprocal. ``m`` is the largest finite number, 448 or 57344. ``NaN`` is ignored by the maximum.
    If all elements are zero, the scale and the result are zero.

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
    """Quantise each token with its own computed scale.

    ``scale = max(min(max(abs(input)), scale_ub) / m, 1 / (512 m))`` and ``result = input / scale``,
    correctly rounded. ``m`` is the largest finite number, 448 or 57344, or 224 on gfx942. ``NaN``
    is ignored by the maximum.

    Source: Micikevicius et al., 2022 (arXiv:2209.05433), section 3.2; the least scale and the bound
        as in FBGEMM's row-wise quantisation.

    Args:
        result: ``[..., d]``, ``float8_e4m3fn`` or ``float8_e5m2``, overwritten.
        input: ``[..., d]``.
        scale: ``float32``, contiguous, one element for each token, overwritten; further elements
            stay unchanged.
        scale_ub: ``float32``, one element: upper bound of the largest magnitude; larger values
            saturate. Or None.
    """
    _C.dynamic_per_token_scaled_fp8_quant(result, input, scale, scale_ub)
