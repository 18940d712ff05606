# SPDX-License-Identifier: Apache-2.0
"""Matrix products of eight-bit numbers with scales, on the tensor cores of GPUs.

For int8 there are kernels for GPUs of compute capability 8.x and 9.0, for float8 for 8.9 and 9.0; a
build has those for the architectures of its list. On another GPU a call is an error that names the
architectures there are kernels for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._ops import namespace

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

_C = namespace("_C")


def _product(
    a: torch.Tensor,
    b: torch.Tensor,
    out_dtype: torch.dtype,
    run: Callable[[torch.Tensor, torch.Tensor], object],
) -> torch.Tensor:
    """``run(out, rows of a)``; the rows are those of the last dimension, and ``out`` gets the other dimensions of ``a``."""
    rows = a.reshape(-1, a.shape[-1])
    out = a.new_empty((rows.shape[0], b.shape[-1]), dtype=out_dtype)
    run(out, rows)
    return out.view(*a.shape[:-1], b.shape[-1])


def cutlass_scaled_mm(
    a: torch.Tensor,
    b: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    out_dtype: torch.dtype,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """``scale_a * (a @ b) * scale_b + bias``, rounded once.

    Sums of int8 are exact. Sums of float8 are those of the tensor cores' own accumulators, as
    torch's ``_scaled_mm`` has them with ``use_fast_accum``.

    Source: Jacob et al., Quantization and Training of Neural Networks, 2018 (arXiv:1712.05877),
        section 2; NVIDIA's CUTLASS.

    Args:
        a: ``[..., K]``, int8 or float8_e4m3fn; rows begin at multiples of 16 bytes, ``K`` is a
            multiple of 16, for int8 at most 131071.
        b: ``[K, N]``, of the dtype of ``a``, column by column in memory (``stride(0) == 1``);
            columns begin at multiples of 16 bytes, ``N`` is a multiple of 16.
        scale_a: float32, one element, or one for each row of ``a``.
        scale_b: float32, one element, or one for each column of ``b``.
        out_dtype: bfloat16 or float16.
        bias: ``[N]``, of ``out_dtype``, or None.

    Returns:
        ``[..., N]`` of ``out_dtype``.
    """
    return _product(
        a,
        b,
        out_dtype,
        lambda out, rows: _C.cutlass_scaled_mm(out, rows, b, scale_a, scale_b, bias),
    )


def cutlass_scaled_mm_azp(
    a: torch.Tensor,
    b: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    out_dtype: torch.dtype,
    azp_adj: torch.Tensor,
    azp: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """``scale_a * (a @ b - azp * azp_adj) * scale_b + bias`` for an int8 ``a`` with zero points; the difference is exact.

    Source: Jacob et al., 2018 (arXiv:1712.05877), section 2.3: what zero points add to a product
        follows from the sums of its columns.

    Args:
        a: ``[..., K]`` int8; this and what follows otherwise as for :func:`cutlass_scaled_mm`.
        b: ``[K, N]`` int8.
        scale_a: float32, one element, or one for each row of ``a``.
        scale_b: float32, one element, or one for each column of ``b``.
        out_dtype: bfloat16 or float16.
        azp_adj: int32, one for each column of ``b``: the column's sum; with ``azp`` None its
            product with the zero point of all of ``a``.
        azp: int32, the zero point of each row of ``a``, or None.
        bias: ``[N]``, of ``out_dtype``, or None.

    Returns:
        ``[..., N]`` of ``out_dtype``.
    """
    return _product(
        a,
        b,
        out_dtype,
        lambda out, rows: _C.cutlass_scaled_mm_azp(
            out, rows, b, scale_a, scale_b, azp_adj, azp, bias
        ),
    )


def cutlass_scaled_mm_supports_fp8(cuda_device_capability: int) -> bool:
    """Whether the installed kernels have :func:`cutlass_scaled_mm` of float8 for a GPU.

    Source: upstream's function of that name; the answer is what was compiled.

    Args:
        cuda_device_capability: the GPU's compute capability, ten times its major number plus its
            minor one: 90 for 9.0.
    """
    answer: bool = _C.cutlass_scaled_mm_supports_fp8(cuda_device_capability)
    return answer


def cutlass_scaled_mm_supports_block_fp8(cuda_device_capability: int) -> bool:
    """Whether :func:`cutlass_scaled_mm` takes scales for blocks of ``a`` and ``b``: no, on no GPU.

    Source: upstream's function of that name.

    Args:
        cuda_device_capability: as for :func:`cutlass_scaled_mm_supports_fp8`.
    """
    answer: bool = _C.cutlass_scaled_mm_supports_block_fp8(cuda_device_capability)
    return answer
