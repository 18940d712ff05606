# SPDX-License-Identifier: Apache-2.0
"""The compiled ops as Python functions, with upstream vLLM's names and arguments.

All of them write into a tensor the caller provides and return ``None``. Shapes are written ``[..., d]``: any number of leading dimensions.
Supported dtypes are ``float32``, ``bfloat16`` and ``float16``, the same for all floating-point tensors of a call; sums are accumulated in
float32. Everything is a call into ``torch.ops._C``, so ``torch.compile`` sees the op itself.

Raises (every function): ``ImportError`` when the kernels are not installed; ``RuntimeError`` when shapes, dtypes or devices do not fit
together, or a tensor's last dimension is not contiguous.
"""

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


def rms_norm(out: torch.Tensor, input: torch.Tensor, weight: torch.Tensor | None, epsilon: float) -> None:  # noqa: A002 - upstream's name
    """Root mean square normalisation over the last dimension: ``out = input / sqrt(mean(input**2) + epsilon) * weight``.

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
    """Add the residual, then normalise, both in place.

    ``residual = input + residual``, then ``input = residual / sqrt(mean(residual**2) + epsilon) * weight``. The sum is rounded to the
    tensors' dtype before it is squared, so the result is what the two separate ops give.

    Source: Zhang and Sennrich, 2019 (arXiv:1910.07467).

    Args:
        input: ``[..., hidden]``, overwritten with the normalised sum.
        residual: ``[..., hidden]``, overwritten with the sum.
        weight: ``[hidden]``, or None for no scaling.
        epsilon: added to the mean square.
    """
    _C.fused_add_rms_norm(input, residual, weight, epsilon)


def rotary_embedding(
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor | None,
    head_size: int,
    cos_sin_cache: torch.Tensor,
    is_neox: bool,  # noqa: FBT001 - upstream's signature, called by position
    rope_dim_offset: int = 0,
    inverse: bool = False,  # noqa: FBT001, FBT002 - upstream's signature, called by position
) -> None:
    """Rotary position embedding, in place: rotates pairs of a head's elements by an angle that grows with the token's position.

    With ``(cos, sin)`` of the token's position, each pair ``(a, b)`` becomes ``(a cos - b sin, b cos + a sin)``. A pair is elements ``i``
    and ``i + rot_dim / 2`` of the rotated part (GPT-NeoX style), or elements ``2 i`` and ``2 i + 1`` (GPT-J style).

    Source: Su et al., RoFormer, 2021 (arXiv:2104.09864), section 3.2.

    Args:
        positions: ``[tokens]`` or ``[batch, seq]``, int64: rows of ``cos_sin_cache``.
        query: ``[..., heads * head_size]`` or ``[..., heads, head_size]`` with the leading dimensions of ``positions``; rotated.
        key: the same for the key heads, or None for nothing to rotate.
        head_size: elements in a head.
        cos_sin_cache: ``[max_position, rot_dim]``: cosines in the first half of a row, sines in the second; ``rot_dim <= head_size``.
        is_neox: GPT-NeoX pairing, else GPT-J's.
        rope_dim_offset: the first element of a head that is rotated; those before it stay.
        inverse: rotate by the negative angle, which undoes the rotation.
    """
    _C.rotary_embedding(positions, query, key, head_size, cos_sin_cache, is_neox, rope_dim_offset, inverse)
