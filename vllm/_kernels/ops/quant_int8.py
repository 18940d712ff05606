# SPDX-License-Identifier: Apache-2.0
"""Quantisation to ``int8``, rounded to nearest, ties to even, and saturated.

``NaN`` is treated as zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace

if TYPE_CHECKING:
    import torch

_C = namespace("_C")


def static_scaled_int8_quant(
    result: torch.Tensor,
    input: torch.Tensor,  # noqa: A002 - upstream's name
    scale: torch.Tensor,
    azp: torch.Tensor | None,
) -> None:
    """Quantise with a given scale.

    ``result = round(input / scale)``; with a zero point, ``round(input * (1 / scale)) + azp``.

    Source: Jacob et al., Quantization and Training of Neural Networks, 2017 (arXiv:1712.05877),
        section 2.1.

    Args:
        result: ``[..., d]``, ``int8``, overwritten.
        input: ``[..., d]``.
        scale: ``float32``, one element.
        azp: ``int32``, one element: the integer that represents zero; or None for 0.
    """
    _C.static_scaled_int8_quant(result, input, scale, azp)


def dynamic_scaled_int8_quant(
    result: torch.Tensor,
    input: torch.Tensor,  # noqa: A002 - upstream's name
    scale: torch.Tensor,
    azp: torch.Tensor | None,
) -> None:
    """Quantise each token with its own computed scale and, if ``azp`` is given, zero point.

    Symmetric: ``scale = max(abs(input)) / 127`` and ``result = round(input * (127 /
    max(abs(input))))``. If all elements are zero, the scale and the result are zero.

    Asymmetric: ``scale = (max - min) / 255``, ``azp = round(-128 - min / scale)`` and ``result =
    round(input * (1 / scale)) + azp``. If all elements of a token are equal, zero is included in
    the range; upstream divides by zero there. ``NaN`` is ignored by the minimum and maximum.

    Source: Jacob et al., 2017 (arXiv:1712.05877), sections 2.1 and 3.

    Args:
        result: ``[..., d]``, ``int8``, overwritten.
        input: ``[..., d]``.
        scale: ``float32``, contiguous, one element for each token, overwritten; further elements
            stay unchanged.
        azp: ``int32``, same size as ``scale``, overwritten; or None for the symmetric form.
    """
    _C.dynamic_scaled_int8_quant(result, input, scale, azp)
