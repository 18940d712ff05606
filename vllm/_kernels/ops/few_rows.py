# SPDX-License-Identifier: Apache-2.0
"""Matrix products of a few rows of activations with a weight, for ROCm.

Their time is that of reading the weight: with more rows, ``torch.nn.functional.linear`` is faster.
Sums are accumulated in float32 and rounded once, after the bias. Their order depends on the shape
of the weight and on ``cu_count`` alone, so the same call has the same result, bit for bit, and a
row of activations the same alone and among others.

In upstream's order of arguments, the weight comes first. Rows of weights and activations may lie
apart; their elements are adjacent. The kernels are fastest where rows begin at multiples of 16
bytes and ``K`` fills whole multiples of that; other sizes and places are as right. No kernel of
this module has run on an AMD GPU yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace

if TYPE_CHECKING:
    import torch

_OPS = namespace("_rocm_C")


def LLMM1(  # noqa: N802 - upstream's name
    a: torch.Tensor,
    b: torch.Tensor,
    rows_per_block: int,
) -> torch.Tensor:
    """Product of a weight with one row of activations: ``b @ a.T``.

    Upstream accumulates eight products in the dtype of the arguments, and leaves results out where
    ``rows_per_block`` does not divide ``M``. Here all are computed, in float32.

    Source: upstream's function of that name.

    Args:
        a: the weight, ``[M, K]``, bfloat16 or float16.
        b: the activations, ``[1, K]``, of the dtype of ``a``.
        rows_per_block: upstream's number of rows of ``a`` for a thread block, at least 1. These
            kernels choose it themselves, so the number has no effect.

    Returns:
        ``[1, M]``, of the dtype of ``a``.
    """
    result: torch.Tensor = _OPS.LLMM1(a, b, rows_per_block)
    return result


def wvSplitK(  # noqa: N802 - upstream's name
    a: torch.Tensor, b: torch.Tensor, cu_count: int, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Product of a weight with up to 16 rows of activations: ``b @ a.T + bias``.

    Upstream's takes up to 4 rows, or 5, and ``K`` in multiples of 8.

    Source: upstream's function of that name.

    Args:
        a: the weight, ``[M, K]``, bfloat16 or float16.
        b: the activations, ``[N, K]``, ``N <= 16``, of the dtype of ``a``.
        cu_count: the compute units of the GPU, at least 1: as many are kept busy.
        bias: of the dtype of ``a``, anything that can be broadcast to ``[N, M]``; or None. One
            without elements is none.

    Returns:
        ``[N, M]``, of the dtype of ``a``.
    """
    result: torch.Tensor = _OPS.wvSplitK(a, b, bias, cu_count)
    return result


def wvSplitKrc(  # noqa: N802 - upstream's name
    a: torch.Tensor, b: torch.Tensor, cu_count: int, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """:func:`wvSplitK` for up to 128 rows, for weights with fewer rows than keep a GPU busy.

    Thread blocks then share rows of the weight, each with a part of ``K``, and a second kernel adds
    the parts in order. Upstream adds them as they come, so that its results differ from call to
    call. More than 16 rows are computed 16 at a time, and the weight is read again for each.

    Source: upstream's function of that name.

    Args:
        a: the weight, ``[M, K]``, bfloat16 or float16.
        b: the activations, ``[N, K]``, ``N <= 128``, of the dtype of ``a``.
        cu_count: the compute units of the GPU, at least 1: as many are kept busy.
        bias: as for :func:`wvSplitK`.

    Returns:
        ``[N, M]``, of the dtype of ``a``.
    """
    result: torch.Tensor = _OPS.wvSplitKrc(a, b, bias, cu_count)
    return result


def wvSplitKQ(  # noqa: N802 - upstream's name
    a: torch.Tensor,
    b: torch.Tensor,
    out_dtype: torch.dtype,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    cu_count: int,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Product of float8 matrices: ``(b @ a.T) * (scale_a * scale_b) + bias``, up to 16 rows.

    The products are exact, and every GPU takes both dtypes. Upstream's kernels take the one that
    the GPU's matrix instructions have, up to 4 rows, and ``K`` in multiples of 16.

    Source: Micikevicius et al., FP8 Formats for Deep Learning, 2022 (arXiv:2209.05433), for
        float8_e4m3fn; upstream's function of that name.

    Args:
        a: the weight, ``[M, K]``, float8_e4m3fn or float8_e4m3fnuz.
        b: the activations, ``[N, K]``, ``N <= 16``, of the dtype of ``a``.
        out_dtype: bfloat16 or float16.
        scale_a: one float32.
        scale_b: one float32.
        cu_count: the compute units of the GPU, at least 1: as many are kept busy.
        bias: of ``out_dtype``; otherwise as for :func:`wvSplitK`.

    Returns:
        ``[N, M]`` of ``out_dtype``.
    """
    out = b.new_empty((b.shape[0], a.shape[0]), dtype=out_dtype)
    _OPS.wvSplitKQ(a, b, bias, out, scale_a, scale_b, cu_count)
    return out


def wvSplitK_int4_g(  # noqa: N802 - upstream's name
    a: torch.Tensor,
    b: torch.Tensor,
    scale: torch.Tensor,
    cu_count: int,
    group_size: int,
    zero_points: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Product with a weight of four-bit numbers: ``b @ ((a - zero_points) * scale).T + bias``.

    Eight elements of a row share four bytes. Read as a little-endian word, bits ``4 p`` to ``4 p +
    3`` are element ``2 p``, and bits ``4 p + 16`` to ``4 p + 19`` element ``2 p + 1``. If an
    activation is infinite, the results of its row are infinite or NaN.

    Upstream's packed zero points need ``M`` in multiples of 8; here the last word may have unused
    bits. Earlier releases of upstream have zero points in the dtype of ``b``, one for each scale,
    which are taken as well.

    Source: Frantar et al., GPTQ, 2022 (arXiv:2210.17323), for groups; upstream's function of that
        name.

    Args:
        a: the weight, ``[M, K / 2]`` int8 or uint8, or ``[M, K / 8]`` int32 or uint32; ``K`` is a
            multiple of ``group_size``, or of 16.
        b: the activations, ``[N, K]``, ``N <= 16``, bfloat16 or float16.
        scale: ``[M, K / group_size]``, of the dtype of ``b``.
        cu_count: the compute units of the GPU, at least 1: as many are kept busy.
        group_size: 32, 64 or 128 adjacent elements of a row have one scale; -1: the whole row.
        zero_points: ``[M / 8, K / group_size]`` int32 or uint32, where bits ``4 r`` to ``4 r + 3``
            of a word are for row ``r`` of its eight; or ``[M, K / group_size]`` of the dtype of
            ``b``; or None: 8 for all.
        bias: of the dtype of ``b``; otherwise as for :func:`wvSplitK`.

    Returns:
        ``[N, M]``, of the dtype of ``b``.
    """
    result: torch.Tensor = _OPS.wvSplitK_int4_g(
        a, b, scale, zero_points, bias, cu_count, group_size
    )
    return result
