# SPDX-License-Identifier: Apache-2.0
"""Activations and gates of feed-forward layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace

if TYPE_CHECKING:
    import torch

_C = namespace("_C")


def silu_and_mul(out: torch.Tensor, x: torch.Tensor) -> None:
    r"""SwiGLU's gate: ``out = silu(x[..., :d]) * x[..., d:]`` with ``silu(v) = v / (1 + exp(-v))``.

    Source: Shazeer, GLU Variants Improve Transformer, 2020 (arXiv:2002.05202); SiLU from Elfwing et
        al., 2017 (arXiv:1702.03118).

    Args:
        out: ``[..., d]``, overwritten.
        x: ``[..., 2 d]``: gate, then value.
    """
    _C.silu_and_mul(out, x)


def gelu_and_mul(out: torch.Tensor, x: torch.Tensor) -> None:
    r"""GeGLU's gate with the exact GELU.

    ``out = gelu(x[..., :d]) * x[..., d:]`` with ``gelu(v) = v / 2 * (1 + erf(v / sqrt(2)))``.

    Source: Shazeer, 2020 (arXiv:2002.05202); GELU from Hendrycks and Gimpel, 2016
        (arXiv:1606.08415).

    Args:
        out: ``[..., d]``, overwritten.
        x: ``[..., 2 d]``: gate, then value.
    """
    _C.gelu_and_mul(out, x)


def gelu_tanh_and_mul(out: torch.Tensor, x: torch.Tensor) -> None:
    r"""GeGLU's gate with the tanh approximation of GELU.

    ``out = g(x[..., :d]) * x[..., d:]`` with ``g(v) = v / 2 * (1 + tanh(sqrt(2 / pi) * (v +
    0.044715 * v**3)))``.

    Source: Shazeer, 2020 (arXiv:2002.05202); the approximation from Hendrycks and Gimpel, 2016
        (arXiv:1606.08415), section 2.

    Args:
        out: ``[..., d]``, overwritten.
        x: ``[..., 2 d]``: gate, then value.
    """
    _C.gelu_tanh_and_mul(out, x)


def gelu_new(out: torch.Tensor, x: torch.Tensor) -> None:
    """GELU in the tanh approximation, as GPT-2 uses it.

    ``out = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))``.

    Source: Hendrycks and Gimpel, 2016 (arXiv:1606.08415), section 2.

    Args:
        out: ``[..., d]``, overwritten.
        x: the same shape.
    """
    _C.gelu_new(out, x)


def gelu_fast(out: torch.Tensor, x: torch.Tensor) -> None:
    """Compute :func:`gelu_new` with one multiplication less.

    ``out = x / 2 * (1 + tanh(0.7978845608 x * (1 + 0.044715 * x**2)))``.

    Source: Hendrycks and Gimpel, 2016 (arXiv:1606.08415), section 2; 0.7978845608 is sqrt(2 / pi).

    Args:
        out: ``[..., d]``, overwritten.
        x: the same shape.
    """
    _C.gelu_fast(out, x)


def gelu_quick(out: torch.Tensor, x: torch.Tensor) -> None:
    """GELU in the sigmoid approximation: ``out = x / (1 + exp(-1.702 * x))``.

    Source: Hendrycks and Gimpel, 2016 (arXiv:1606.08415), section 2.

    Args:
        out: ``[..., d]``, overwritten.
        x: the same shape.
    """
    _C.gelu_quick(out, x)


def gelu_tanh(out: torch.Tensor, x: torch.Tensor) -> None:
    """Compute :func:`gelu_new`, under the name that the CPU backend uses.

    Source: Hendrycks and Gimpel, 2016 (arXiv:1606.08415), section 2.

    Args:
        out: ``[..., d]``, overwritten.
        x: the same shape.
    """
    _C.gelu_tanh(out, x)


def relu_squared(out: torch.Tensor, x: torch.Tensor) -> None:
    """Square of the rectified input: ``out = max(x, 0)**2``. ``NaN`` stays ``NaN``.

    Source: So et al., Primer: Searching for Efficient Transformers for Language Modeling, 2021
        (arXiv:2109.08668).

    Args:
        out: ``[..., d]``, overwritten.
        x: the same shape.
    """
    _C.relu_squared(out, x)


def mul_and_silu(out: torch.Tensor, x: torch.Tensor) -> None:
    """SwiGLU's gate with the halves swapped: ``out = x[..., :d] * silu(x[..., d:])``.

    Source: Shazeer, 2020 (arXiv:2002.05202); SiLU from Elfwing et al., 2017 (arXiv:1702.03118).

    Args:
        out: ``[..., d]``, overwritten.
        x: ``[..., 2 d]``: value, then gate.
    """
    _C.mul_and_silu(out, x)


def fatrelu_and_mul(out: torch.Tensor, x: torch.Tensor, threshold: float) -> None:
    """Gate that is zero up to a threshold.

    ``out = (g if g > threshold else 0) * x[..., d:]`` with ``g = x[..., :d]``.

    ``NaN`` stays ``NaN``.

    Source: Song et al., ProSparse, 2024 (arXiv:2402.13516), section 3 (FATReLU); gate as in
        Shazeer, 2020 (arXiv:2002.05202).

    Args:
        out: ``[..., d]``, overwritten.
        x: ``[..., 2 d]``: gate, then value.
        threshold: gates up to this value count as zero.
    """
    _C.fatrelu_and_mul(out, x, threshold)


def silu_and_mul_with_clamp(
    out: torch.Tensor, x: torch.Tensor, limit: float, alpha: float = 1.0, beta: float = 0.0
) -> None:
    """SwiGLU's gate on clamped halves: ``out = g * sigmoid(alpha * g) * (u + beta)``.

    ``g = min(x[..., :d], limit)`` and ``u = clamp(x[..., d:], -limit, limit)``. ``NaN`` stays
    ``NaN``.

    Source: OpenAI, gpt-oss-120b & gpt-oss-20b Model Card, 2025 (arXiv:2508.10925), section 2.2;
        Shazeer, 2020 (arXiv:2002.05202).

    Args:
        out: ``[..., d]``, overwritten.
        x: ``[..., 2 d]``: gate, then value.
        limit: upper bound of a gate and of a value's magnitude.
        alpha: factor inside the sigmoid.
        beta: added to the value.
    """
    _C.silu_and_mul_with_clamp(out, x, limit, alpha, beta)


def swigluoai_and_mul(
    out: torch.Tensor, x: torch.Tensor, alpha: float = 1.702, limit: float = 7.0
) -> None:
    """Gate of gpt-oss, interleaved with the values: ``out = g * sigmoid(alpha * g) * (u + 1)``.

    ``g = min(x[..., 0::2], limit)`` and ``u = clamp(x[..., 1::2], -limit, limit)``. ``NaN`` stays
    ``NaN``.

    Source: OpenAI, gpt-oss-120b & gpt-oss-20b Model Card, 2025 (arXiv:2508.10925), section 2.2.

    Args:
        out: ``[..., d]``, overwritten.
        x: ``[..., 2 d]``: gate, value, gate, value, ...
        alpha: factor inside the sigmoid.
        limit: upper bound of a gate and of a value's magnitude.
    """
    _C.swigluoai_and_mul(out, x, alpha, limit)


def silu_and_mul_quant(out: torch.Tensor, x: torch.Tensor, scale: torch.Tensor) -> None:
    """SwiGLU's gate, quantised with a given scale and rounded once.

    ``out = silu(x[..., :d]) * x[..., d:] * (1 / scale)``.

    Source: Shazeer, 2020 (arXiv:2002.05202); Micikevicius et al., FP8 Formats for Deep Learning,
        2022 (arXiv:2209.05433).

    Args:
        out: ``[..., d]``, ``float8_e4m3fn`` or ``float8_e5m2``, overwritten.
        x: ``[..., 2 d]``: gate, then value.
        scale: ``float32``, one element.
    """
    _C.silu_and_mul_quant(out, x, scale)
