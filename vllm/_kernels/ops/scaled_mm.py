# SPDX-License-Identifier: Apache-2.0
"""Matrix products of eight-bit numbers with scales, on the tensor cores of GPUs.

There are int8 kernels for compute capability 8.x and 9.0, and float8 kernels for 8.9 and 9.0. A
build contains those for its list of architectures. On any other GPU a call raises an error that
lists the supported architectures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace

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
    """Call ``run(out, rows)`` with ``a`` as a matrix of rows, and return ``out``.

    ``out`` has the leading dimensions of ``a`` and the columns of ``b``.
    """
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
    """Product with scales and a bias, rounded once: ``scale_a * (a @ b) * scale_b + bias``.

    Sums of int8 are exact. Sums of float8 have the precision of the tensor cores' accumulators,
    like torch's ``_scaled_mm`` with ``use_fast_accum``.

    Source: Jacob et al., Quantization and Training of Neural Networks, 2018 (arXiv:1712.05877),
        section 2; NVIDIA's CUTLASS.

    Args:
        a: ``[..., K]``, int8 or float8_e4m3fn. Rows begin at multiples of 16 bytes. ``K`` is a
            multiple of 16, and at most 131071 for int8.
        b: ``[K, N]``, same dtype as ``a``, column-major (``stride(0) == 1``). Columns begin at
            multiples of 16 bytes. ``N`` is a multiple of 16.
        scale_a: float32, one element or one for each row of ``a``.
        scale_b: float32, one element or one for each column of ``b``.
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
    """Product of an int8 matrix with zero points and an int8 matrix, with scales and a bias.

    ``scale_a * (a @ b - azp * azp_adj) * scale_b + bias``. The difference is exact.

    Source: Jacob et al., 2018 (arXiv:1712.05877), section 2.3: the contribution of zero points to a
        product follows from the column sums.

    Args:
        a: ``[..., K]`` int8. Alignment and sizes of all tensors are as for
            :func:`cutlass_scaled_mm`.
        b: ``[K, N]`` int8.
        scale_a: float32, one element or one for each row of ``a``.
        scale_b: float32, one element or one for each column of ``b``.
        out_dtype: bfloat16 or float16.
        azp_adj: int32, one for each column of ``b``: the column's sum. If ``azp`` is None, the sum
            times the one zero point of ``a``.
        azp: int32, the zero point of each row of ``a``; or None.
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
    """Whether the installed kernels have a float8 :func:`cutlass_scaled_mm` for a GPU.

    Source: upstream's function of that name; the answer depends on the compiled architectures.

    Args:
        cuda_device_capability: the GPU's compute capability, ten times the major number plus the
            minor number: 90 for 9.0.
    """
    answer: bool = _C.cutlass_scaled_mm_supports_fp8(cuda_device_capability)
    return answer


def cutlass_scaled_mm_supports_block_fp8(cuda_device_capability: int) -> bool:
    """Whether :func:`cutlass_scaled_mm` supports scales for blocks of ``a`` and ``b``: never.

    Source: upstream's function of that name.

    Args:
        cuda_device_capability: as for :func:`cutlass_scaled_mm_supports_fp8`.
    """
    answer: bool = _C.cutlass_scaled_mm_supports_block_fp8(cuda_device_capability)
    return answer
