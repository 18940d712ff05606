# SPDX-License-Identifier: Apache-2.0
"""Matrix products with prepacked weights: in floating point, and of int8 with scales.

``create_onednn_mm_handler`` and ``create_onednn_scaled_mm_handler`` pack a copy of a weight and
return its number. The products take that number in a tensor, so that ``torch.compile`` does not
treat it as a constant. ``release_dnnl_matmul_handler`` frees the copy. An unknown or released
number is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace

if TYPE_CHECKING:
    import torch

_C = namespace("_C")


def create_onednn_mm_handler(b: torch.Tensor, primitive_cache_size: int) -> int:
    """Pack a weight for :func:`onednn_mm`.

    Source: Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008 (the
        packing).

    Args:
        b: ``[K, N]``, float32, bfloat16 or float16, with any strides; it is copied.
        primitive_cache_size: upstream's size of oneDNN's primitive cache, at least 0. Ignored:
            there is no such cache here.

    Returns:
        The number of the packed weight.
    """
    number: int = _C.create_onednn_mm_handler(b, primitive_cache_size)
    return number


def onednn_mm(
    c: torch.Tensor, a: torch.Tensor, bias: torch.Tensor | None, handler_tensor: torch.Tensor
) -> None:
    """Matrix product with a packed weight: ``c = a @ b + bias``.

    Sums are accumulated in float32 and rounded once.

    Source: Goto and van de Geijn, 2008 (the order of the loops).

    Args:
        c: ``[M, N]``, overwritten; same dtype as the weight. M may be several dimensions.
        a: ``[M, K]``, same dtype as the weight.
        bias: ``[N]``, same dtype as the weight, or None.
        handler_tensor: one int64, the number from :func:`create_onednn_mm_handler`.
    """
    _C.onednn_mm(c, a, bias, handler_tensor)


def create_onednn_scaled_mm_handler(
    b: torch.Tensor,
    b_scales: torch.Tensor,
    output_type: torch.dtype,
    dynamic_act_quant: bool,  # noqa: FBT001 - upstream's signature, called by position
    use_azp: bool,  # noqa: FBT001 - upstream's signature, called by position
    primitive_cache_size: int,
) -> int:
    """Pack an int8 weight for :func:`onednn_scaled_mm`.

    Source: Jacob et al., Quantization and Training of Neural Networks, 2018 (arXiv:1712.05877),
        section 2.

    Args:
        b: ``[K, N]`` int8 with any strides, ``K <= 131071``; it is copied.
        b_scales: float32, one element or one for each of the ``N`` columns; any shape.
        output_type: dtype of the products: float32, bfloat16 or float16.
        dynamic_act_quant: whether each row of ``a`` has a scale (and zero point); otherwise there
            is one for all rows.
        use_azp: whether the products get zero points.
        primitive_cache_size: upstream's size of oneDNN's primitive cache, at least 0. Ignored:
            there is no such cache here.

    Returns:
        The number of the packed weight.
    """
    number: int = _C.create_onednn_scaled_mm_handler(
        b, b_scales, output_type, dynamic_act_quant, use_azp, primitive_cache_size
    )
    return number


def onednn_scaled_mm(
    c: torch.Tensor,
    a: torch.Tensor,
    a_scales: torch.Tensor,
    azp: torch.Tensor | None,
    azp_adj: torch.Tensor | None,
    bias: torch.Tensor | None,
    handler_tensor: torch.Tensor,
) -> None:
    """Product of an int8 matrix with a packed int8 weight.

    ``c = a_scales * ((a - azp) @ b) * b_scales + bias``. The sum of products is exact on every CPU;
    the remaining steps are computed in float32.

    Source: Jacob et al., 2018 (arXiv:1712.05877), section 2.2.

    Args:
        c: ``[M, N]``, overwritten; its dtype is the handler's ``output_type``.
        a: ``[M, K]`` int8.
        a_scales: float32, one element; with ``dynamic_act_quant``, one for each of the ``M`` rows.
        azp: int32 zero points, as many as ``a_scales``. Required if the handler was created with
            ``use_azp``, otherwise None.
        azp_adj: float32, one for each of the ``N`` columns: ``b_scales`` times the sum of the
            column; or None. Upstream's kernels need it. These kernels use the exact sums computed
            during packing and only check its shape.
        bias: ``[N]``, float32 or the dtype of ``c``, or None.
        handler_tensor: one int64, the number from :func:`create_onednn_scaled_mm_handler`.
    """
    _C.onednn_scaled_mm(c, a, a_scales, azp, azp_adj, bias, handler_tensor)


def release_dnnl_matmul_handler(handler: int) -> None:
    """Free a packed weight, after products that are using it have finished.

    Source: upstream's counterpart of the two packing functions.

    Args:
        handler: a number from :func:`create_onednn_mm_handler` or
            :func:`create_onednn_scaled_mm_handler`, released once.
    """
    _C.release_dnnl_matmul_handler(handler)
