# SPDX-License-Identifier: Apache-2.0
"""Matrix products with small weights that are packed into a tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace

if TYPE_CHECKING:
    import torch

_C = namespace("_C")


def convert_weight_packed(weight: torch.Tensor) -> torch.Tensor:
    """Pack a weight for :func:`weight_packed_linear`.

    Source: Intel's architecture manual, TDPBF16PS (the order of the elements in bfloat16).

    Args:
        weight: ``[N, K]``, float32, bfloat16 or float16, with any strides.

    Returns:
        A tensor of the same dtype with a copy of the weight. Its shape and the order of its
        elements are private to these two ops. Unlike upstream's, it takes any ``N`` and ``K`` and
        keeps the dtype. Weights of experts (three dimensions), int8 and float8 are refused.
    """
    packed: torch.Tensor = _C.convert_weight_packed(weight)
    return packed


def weight_packed_linear(
    out: torch.Tensor,
    mat1: torch.Tensor,
    mat2: torch.Tensor,
    bias: torch.Tensor | None,
    is_vnni: bool,  # noqa: FBT001 - upstream's signature, called by position
) -> None:
    """Matrix product with a packed weight: ``out = mat1 @ weight.T + bias``.

    Sums are accumulated in float32 and rounded once. CPUs with AMX or AVX512_BF16 multiply
    bfloat16 themselves. They take subnormal numbers for zero, and a sum's last bits depend on
    whether there are more than two rows.

    Source: Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008 (the
        order of the loops).

    Args:
        out: ``[M, N]``, overwritten; rows may be apart.
        mat1: ``[M, K]``, same dtype as ``out``; rows may be apart.
        mat2: the result of :func:`convert_weight_packed` for ``[N, K]``, of the same dtype.
        bias: ``[N]`` float32, or None.
        is_vnni: True: ``mat2`` is packed. Upstream's ops have no other form, too.
    """
    _C.weight_packed_linear(out, mat1, mat2, bias, is_vnni)
