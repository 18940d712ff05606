# SPDX-License-Identifier: Apache-2.0
"""Fused root mean square normalisation: with quantisation, or with the rotary embedding.

Results are rounded once. On gfx942, ``float8_e4m3fnuz`` takes the place of ``float8_e4m3fn``
(see :mod:`vllm._custom_ops.quant_fp8`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace

if TYPE_CHECKING:
    import torch

_C = namespace("_C")


def rms_norm_static_fp8_quant(
    result: torch.Tensor,
    input: torch.Tensor,  # noqa: A002 - upstream's name
    weight: torch.Tensor,
    scale: torch.Tensor,
    epsilon: float,
) -> None:
    """Normalise, then quantise with a given scale.

    ``result = input / sqrt(mean(input**2) + epsilon) * weight * (1 / scale)``.

    Source: Zhang and Sennrich, 2019 (arXiv:1910.07467); Micikevicius et al., 2022
        (arXiv:2209.05433).

    Args:
        result: ``[..., hidden]``, ``float8_e4m3fn`` or ``float8_e5m2``, overwritten.
        input: ``[..., hidden]``; any hidden size.
        weight: ``[hidden]``.
        scale: ``float32``, one element.
        epsilon: added to the mean square.
    """
    _C.rms_norm_static_fp8_quant(result, input, weight, scale, epsilon)


def fused_add_rms_norm_static_fp8_quant(
    result: torch.Tensor,
    input: torch.Tensor,  # noqa: A002 - upstream's name
    residual: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    epsilon: float,
) -> None:
    """Add the input to the residual, then normalise and quantise the sum.

    Normalisation and quantisation are those of :func:`rms_norm_static_fp8_quant`.

    The sum is rounded to the tensors' dtype before it is squared.

    Source: Zhang and Sennrich, 2019 (arXiv:1910.07467); Micikevicius et al., 2022
        (arXiv:2209.05433).

    Args:
        result: ``[..., hidden]``, ``float8_e4m3fn`` or ``float8_e5m2``, overwritten.
        input: ``[..., hidden]``, not modified.
        residual: ``[..., hidden]``, overwritten with the sum.
        weight: ``[hidden]``.
        scale: ``float32``, one element.
        epsilon: added to the mean square.
    """
    _C.fused_add_rms_norm_static_fp8_quant(result, input, residual, weight, scale, epsilon)


def rms_norm_dynamic_per_token_quant(
    result: torch.Tensor,
    input: torch.Tensor,  # noqa: A002 - upstream's name
    weight: torch.Tensor,
    scale: torch.Tensor,
    epsilon: float,
    scale_ub: torch.Tensor | None,
    residual: torch.Tensor | None,
) -> None:
    """Normalise, then quantise each token with its own scale.

    Let ``n = input / sqrt(mean(input**2) + epsilon) * weight``, or the same for the residual after
    ``input`` has been added to it. Then ``scale = max(min(max(abs(n)), scale_ub) / m, least)`` and
    ``result = n / scale``. For float8, ``m`` is the largest finite number and ``least = 1 / (512
    m)``. For ``int8``, ``m = 127``, ``least = 2**-23``, and ``n`` is multiplied by the reciprocal
    of the scale.

    Source: Zhang and Sennrich, 2019 (arXiv:1910.07467); Micikevicius et al., 2022
    (arXiv:2209.05433); scales as in FBGEMM's row-wise quantisation.

    Args:
        result: ``[..., hidden]``, ``float8_e4m3fn``, ``float8_e5m2`` or ``int8``, overwritten.
        input: ``[..., hidden]``, not modified.
        weight: ``[hidden]``.
        scale: ``float32``, contiguous, one element for each token, overwritten; further elements
            stay unchanged.
        epsilon: added to the mean square.
        scale_ub: ``float32``, one element: upper bound of the largest magnitude; or None. Not with
            ``int8``.
        residual: ``[..., hidden]``, overwritten with the sum; or None to add nothing.
    """
    _C.rms_norm_dynamic_per_token_quant(result, input, weight, scale, epsilon, scale_ub, residual)


def rms_norm_per_block_quant(  # noqa: PLR0917 - upstream's signature, called by position
    result: torch.Tensor,
    input: torch.Tensor,  # noqa: A002 - upstream's name
    weight: torch.Tensor,
    scale: torch.Tensor,
    epsilon: float,
    scale_ub: torch.Tensor | None,
    residual: torch.Tensor | None,
    group_size: int,
    is_scale_transposed: bool,  # noqa: FBT001 - upstream's signature, called by position
) -> None:
    """Normalise, then quantise each group of adjacent elements with its own scale. GPU only.

    Same as :func:`rms_norm_dynamic_per_token_quant`, with the largest magnitude of the group
    instead of the token's.

    Source: Zhang and Sennrich, 2019 (arXiv:1910.07467); DeepSeek-V3 Technical Report, 2024
        (arXiv:2412.19437), section 3.3.2.

    Args:
        result: ``[..., hidden]``, ``float8_e4m3fn``, ``float8_e5m2`` or ``int8``, overwritten.
        input: ``[..., hidden]``, not modified.
        weight: ``[hidden]``.
        scale: ``float32``, ``[..., hidden / group_size]`` or ``[tokens, hidden / group_size]`` with
            any strides, for example column-major; overwritten.
        epsilon: added to the mean square.
        scale_ub: ``float32``, one element: upper bound of the largest magnitude; or None. Not with
            ``int8``.
        residual: ``[..., hidden]``, overwritten with the sum; or None to add nothing.
        group_size: number of elements in a group; it divides ``hidden``.
        is_scale_transposed: ignored; the strides of ``scale`` decide.
    """
    _C.rms_norm_per_block_quant(
        result, input, weight, scale, epsilon, scale_ub, residual, group_size, is_scale_transposed
    )


def fused_qk_norm_rope(  # noqa: PLR0917 - upstream's signature, called by position
    qkv: torch.Tensor,
    num_heads_q: int,
    num_heads_k: int,
    num_heads_v: int,
    head_dim: int,
    eps: float,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor,
    cos_sin_cache: torch.Tensor,
    is_neox: bool,  # noqa: FBT001 - upstream's signature, called by position
    position_ids: torch.Tensor,
    forced_token_heads_per_warp: int = -1,
) -> None:
    """Normalise every query and key head, then rotate them, in place in a packed tensor.

    A head ``h`` becomes ``h / sqrt(mean(h**2) + eps) * weight``. Its first ``rot_dim`` elements are
    then rotated as in :func:`rotary_embedding`. The result is rounded once.

    Source: Henry et al., Query-Key Normalization for Transformers, 2020 (arXiv:2010.04245), with
    Zhang and Sennrich, 2019 (arXiv:1910.07467); Su et al., 2021 (arXiv:2104.09864), section 3.2.

    Args:
        qkv: ``[tokens, (num_heads_q + num_heads_k + num_heads_v) * head_dim]``: queries and keys
            are overwritten, values stay unchanged.
        num_heads_q: number of query heads.
        num_heads_k: number of key heads.
        num_heads_v: number of value heads.
        head_dim: number of elements in a head.
        eps: added to the mean square.
        q_weight: ``[head_dim]``.
        k_weight: ``[head_dim]``.
        cos_sin_cache: ``[max_position, rot_dim]``: cosines in the first half of a row, sines in the
            second; ``rot_dim <= head_dim``.
        is_neox: whether pairs are GPT-NeoX's; otherwise GPT-J's.
        position_ids: ``[tokens]``, int64: rows of ``cos_sin_cache``. On a GPU, tokens with a
            position outside the cache stay unchanged.
        forced_token_heads_per_warp: ignored; upstream's GPU kernel divides its work by it.
    """
    _C.fused_qk_norm_rope(
        qkv,
        num_heads_q,
        num_heads_k,
        num_heads_v,
        head_dim,
        eps,
        q_weight,
        k_weight,
        cos_sin_cache,
        is_neox,
        position_ids,
        forced_token_heads_per_warp,
    )
