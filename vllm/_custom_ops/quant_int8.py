# SPDX-License-Identifier: Apache-2.0
"""Quantisation to ``int8``, rounded to nearest even and saturated.

``NaN`` gives what zero gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._ops import namespace

if TYPE_CHECKING:
    import torch

_C = namespace("_C")


def static_scaled_int8_quant(
    result: torch.Tensor,
    input: torch.Tensor,  # noqa: A002 - upstream's name
    scale: torch.Tensor,
    azp: torch.Tensor | None,
) -> None:
    """Quantise with a given scale: ``result = round(input / scale)``, or ``round(input * (1 / scale)) + azp`` with a zero point.

    Source: Jacob et al., Quantization and Training of Neural Networks, 2017 (arXiv:1712.05877),
        section 2.1.

    Args:
        result: ``[..., d]``, ``int8``, overwritten.
        input: ``[..., d]``.
        scale: ``float32``, one element.
        azp: ``int32``, one element: the integer that stands for zero; or None for 0.
    """
    _C.static_scaled_int8_quant(result, input, scale, azp)


def dynamic_scaled_int8_quant(
    result: torch.Tensor,
    input: torch.Tensor,  # noqa: A002 - upstream's name
    scale: torch.Tensor,
    azp: torch.Tensor | None,
) -> None:
    """Quantise every token with a scale of its own, and a zero point of its own if ``azp`` is given.

    Symmetric: ``scale = max(abs(input)) / 127`` and ``result = round(input * (127 /
        max(abs(input))))``; zeros give the scale 0 and zeros.
    Asymmetric: ``scale = (max - min) / 255``, ``azp = round(-128 - min / scale)`` and ``result =
    round(input * (1 / scale)) + azp``; where all elements of a token are the same number, which
    upstream divides by zero for, zero counts as one of them. ``NaN`` is left out of the extremes.

    Source: Jacob et al., 2017 (arXiv:1712.05877), sections 2.1 and 3.

    Args:
        result: ``[..., d]``, ``int8``, overwritten.
        input: ``[..., d]``.
        scale: ``float32``, contiguous, an element for each token (or more, which stay),
            overwritten.
        azp: ``int32``, the same, overwritten; or None for the symmetric form.
    """
    _C.dynamic_scaled_int8_quant(result, input, scale, azp)
