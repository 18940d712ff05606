# SPDX-License-Identifier: Apache-2.0
"""Activations and gates of feed-forward layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._ops import namespace

if TYPE_CHECKING:
    import torch

_C = namespace("_C")


def silu_and_mul(out: torch.Tensor, x: torch.Tensor) -> None:
    r"""SwiGLU's gate: ``out = silu(x[..., :d]) * x[..., d:]`` with ``silu(v) = v / (1 + exp(-v))``.

    Source: Shazeer, GLU Variants Improve Transformer, 2020 (arXiv:2002.05202); SiLU from Elfwing et al., 2017 (arXiv:1702.03118).

    Args:
        out: ``[..., d]``, overwritten.
        x: ``[..., 2 d]``: gate, then value.
    """
    _C.silu_and_mul(out, x)


def gelu_and_mul(out: torch.Tensor, x: torch.Tensor) -> None:
    r"""GeGLU's gate with the exact GELU: ``out = gelu(x[..., :d]) * x[..., d:]`` with ``gelu(v) = v / 2 * (1 + erf(v / sqrt(2)))``.

    Source: Shazeer, 2020 (arXiv:2002.05202); GELU from Hendrycks and Gimpel, 2016 (arXiv:1606.08415).

    Args:
        out: ``[..., d]``, overwritten.
        x: ``[..., 2 d]``: gate, then value.
    """
    _C.gelu_and_mul(out, x)


def gelu_tanh_and_mul(out: torch.Tensor, x: torch.Tensor) -> None:
    r"""GeGLU's gate with the tanh approximation of GELU.

    ``out = g(x[..., :d]) * x[..., d:]`` with ``g(v) = v / 2 * (1 + tanh(sqrt(2 / pi) * (v + 0.044715 * v**3)))``.

    Source: Shazeer, 2020 (arXiv:2002.05202); the approximation from Hendrycks and Gimpel, 2016 (arXiv:1606.08415), section 2.

    Args:
        out: ``[..., d]``, overwritten.
        x: ``[..., 2 d]``: gate, then value.
    """
    _C.gelu_tanh_and_mul(out, x)


def gelu_new(out: torch.Tensor, x: torch.Tensor) -> None:
    """GELU by its tanh approximation, as GPT-2 uses it: ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))``.

    Source: Hendrycks and Gimpel, 2016 (arXiv:1606.08415), section 2.

    Args:
        out: ``[..., d]``, overwritten.
        x: the same shape.
    """
    _C.gelu_new(out, x)


def gelu_fast(out: torch.Tensor, x: torch.Tensor) -> None:
    """The function of :func:`gelu_new` with one multiplication less: ``x / 2 * (1 + tanh(0.7978845608 x * (1 + 0.044715 * x**2)))``.

    Source: Hendrycks and Gimpel, 2016 (arXiv:1606.08415), section 2; 0.7978845608 is sqrt(2 / pi).

    Args:
        out: ``[..., d]``, overwritten.
        x: the same shape.
    """
    _C.gelu_fast(out, x)


def gelu_quick(out: torch.Tensor, x: torch.Tensor) -> None:
    """GELU by its sigmoid approximation: ``x / (1 + exp(-1.702 * x))``.

    Source: Hendrycks and Gimpel, 2016 (arXiv:1606.08415), section 2.

    Args:
        out: ``[..., d]``, overwritten.
        x: the same shape.
    """
    _C.gelu_quick(out, x)
