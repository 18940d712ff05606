# SPDX-License-Identifier: Apache-2.0
"""Matrix products with weights that are packed once: in floating point, and of int8 with scales.

A weight is packed by ``create_onednn_mm_handler`` or ``create_onednn_scaled_mm_handler``, which
keep a copy and return a number for it. The products take that number in a tensor, so that
``torch.compile`` does not take it for a constant. ``release_dnnl_matmul_handler`` frees the copy. A
number that was not given, or was released, is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._ops import namespace

if TYPE_CHECKING:
    import torch

_C = namespace("_C")


def create_onednn_mm_handler(b: torch.Tensor, primitive_cache_size: int) -> int:
    """Pack a weight for :func:`onednn_mm`.

    Source: Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008, for the
        packing.

    Args:
        b: ``[K, N]``, float32, bfloat16 or float16, with any strides; it is copied.
        primitive_cache_size: upstream's argument for oneDNN's cache of primitives, at least 0;
            there is none here.

    Returns:
        The number of the packed weight.
    """
    number: int = _C.create_onednn_mm_handler(b, primitive_cache_size)
    return number


def onednn_mm(
    c: torch.Tensor, a: torch.Tensor, bias: torch.Tensor | None, handler_tensor: torch.Tensor
) -> None:
    """Matrix product with a packed weight: ``c = a @ b + bias``, accumulated in float32 and rounded once.

    Source: Goto and van de Geijn, 2008, for the order of the loops.

    Args:
        c: ``[M, N]``, overwritten; the dtype of the weight.
        a: ``[M, K]``, the dtype of the weight.
        bias: ``[N]``, the dtype of the weight, or None.
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
    """Pack a weight of int8 for :func:`onednn_scaled_mm`.

    Source: Jacob et al., Quantization and Training of Neural Networks, 2018 (arXiv:1712.05877),
        section 2.

    Args:
        b: ``[K, N]`` int8 with any strides, ``K <= 131071``; it is copied.
        b_scales: float32, one element or one for each of the ``N`` columns; any shape.
        output_type: of the products: float32, bfloat16 or float16.
        dynamic_act_quant: the products get scales, and zero points, for each row of ``a``; else one
            for all.
        use_azp: the products get zero points.
        primitive_cache_size: upstream's argument for oneDNN's cache of primitives, at least 0;
            there is none here.

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
    """Product of int8 matrices with a packed weight: ``c = a_scales * ((a - azp) @ b) * b_scales + bias``.

    The sum of products is exact on every CPU; what follows it is in float32.

    Source: Jacob et al., 2018 (arXiv:1712.05877), section 2.2.

    Args:
        c: ``[M, N]``, overwritten; of the handler's ``output_type``.
        a: ``[M, K]`` int8.
        a_scales: float32, one element, or with ``dynamic_act_quant`` one for each of the ``M``
            rows.
        azp: int32 zero points, likewise; given exactly if the handler was created with ``use_azp``.
        azp_adj: float32, one for each of the ``N`` columns: ``b_scales`` times the sum of the
            column. Upstream's kernels need it; these have the exact sums from the packing and use
            them, so it is checked for its shape only. None is as good.
        bias: ``[N]``, float32 or the dtype of ``c``, or None.
        handler_tensor: one int64, the number from :func:`create_onednn_scaled_mm_handler`.
    """
    _C.onednn_scaled_mm(c, a, a_scales, azp, azp_adj, bias, handler_tensor)


def release_dnnl_matmul_handler(handler: int) -> None:
    """Free a packed weight. A product that is running with it ends first.

    Source: upstream's counterpart of the two functions that pack.

    Args:
        handler: a number from :func:`create_onednn_mm_handler` or
            :func:`create_onednn_scaled_mm_handler`, released once.
    """
    _C.release_dnnl_matmul_handler(handler)
