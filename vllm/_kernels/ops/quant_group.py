# SPDX-License-Identifier: Apache-2.0
"""Quantisation of groups of adjacent elements of a token, each with its own scale.

On gfx942, ``float8_e4m3fnuz`` takes the place of ``float8_e4m3fn`` (see
:mod:`vllm._custom_ops.quant_fp8`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace

if TYPE_CHECKING:
    import torch

_C = namespace("_C")


def per_token_group_fp8_quant(  # noqa: PLR0917 - upstream's signature, called by position
    input: torch.Tensor,  # noqa: A002 - upstream's name
    output_q: torch.Tensor,
    output_s: torch.Tensor,
    group_size: int,
    eps: float,
    fp8_min: float,
    fp8_max: float,
    scale_ue8m0: bool,  # noqa: FBT001 - upstream's signature, called by position
    dummy_is_scale_transposed: bool,  # noqa: FBT001 - upstream's signature, called by position
    dummy_is_tma_aligned: bool,  # noqa: FBT001 - upstream's signature, called by position
) -> None:
    """Quantise groups to float8.

    ``scale = max(max(abs(group)), eps) / fp8_max`` and ``output_q = clamp(input / scale, fp8_min,
    fp8_max)``, rounded to nearest, ties to even. ``NaN`` stays ``NaN`` and is ignored by the
    maximum.

    Source: DeepSeek-V3 Technical Report, 2024 (arXiv:2412.19437), section 3.3.2; power-of-two
        scales from OCP Microscaling Formats 1.0, E8M0.

    Args:
        input: ``[..., d]``.
        output_q: ``[..., d]``, ``float8_e4m3fn`` or ``float8_e5m2``, overwritten.
        output_s: ``float32``, ``[..., d / group_size]`` or ``[tokens, d / group_size]`` with any
            strides, for example column-major; overwritten.
        group_size: number of elements in a group; it divides ``d``.
        eps: lower bound of the maximum, greater than 0.
        fp8_min: lower bound of the quotient.
        fp8_max: upper bound of the quotient, greater than 0.
        scale_ue8m0: round scales up to powers of two; they are at least 1e-10 before rounding.
        dummy_is_scale_transposed: ignored; the strides of ``output_s`` decide.
        dummy_is_tma_aligned: ignored; the strides of ``output_s`` decide.
    """
    _C.per_token_group_fp8_quant(
        input,
        output_q,
        output_s,
        group_size,
        eps,
        fp8_min,
        fp8_max,
        scale_ue8m0,
        dummy_is_scale_transposed,
        dummy_is_tma_aligned,
    )


def per_token_group_quant_int8(
    input: torch.Tensor,  # noqa: A002 - upstream's name
    output_q: torch.Tensor,
    output_s: torch.Tensor,
    group_size: int,
    eps: float,
    int8_min: float,
    int8_max: float,
) -> None:
    """Quantise groups to int8.

    ``scale = max(max(abs(group)), eps) / int8_max`` and ``output_q = clamp(input / scale, int8_min,
    int8_max)``. The quotient is rounded towards zero, as in upstream's kernels. ``NaN`` becomes 0
    and is ignored by the maximum.

    Source: Dettmers et al., 8-bit Optimizers via Block-wise Quantization, 2021 (arXiv:2110.02861),
        section 2.1.

    Args:
        input: ``[..., d]``.
        output_q: ``[..., d]``, ``int8``, overwritten.
        output_s: ``float32``, ``[..., d / group_size]`` or ``[tokens, d / group_size]`` with any
            strides, for example column-major; overwritten.
        group_size: number of elements in a group; it divides ``d``.
        eps: lower bound of the maximum, greater than 0.
        int8_min: lower bound of the quotient.
        int8_max: upper bound of the quotient, greater than 0.
    """
    _C.per_token_group_quant_int8(input, output_q, output_s, group_size, eps, int8_min, int8_max)
