# SPDX-License-Identifier: Apache-2.0
"""Comparison of an op's result with PyTorch's."""

from __future__ import annotations

import torch

from kernels.workload import FP8

#: Dtype -> error that rounding explains: relative to the value, and relative to the root mean
#: square of the result.
TOLERANCE = {
    torch.float32: (1e-4, 1e-4),
    torch.bfloat16: (2**-6, 2**-6),
    torch.float16: (2**-9, 2**-9),
}


class Different(Exception):  # noqa: N818 - a finding, not an error of the program
    """The op's result differs from PyTorch's."""


def compare(got: torch.Tensor, want: torch.Tensor, slack: float = 1.0) -> None:
    """Compare one result with PyTorch's.

    Raises:
        Different: they differ by more than rounding explains.
    """
    if got.shape != want.shape:
        raise Different(f"shape {list(got.shape)}, PyTorch has {list(want.shape)}")
    if not got.is_floating_point() and got.dtype != torch.int8:
        wrong = int((got != want).sum())
        if wrong:
            raise Different(f"{wrong} of {got.numel()} integers differ")
        return
    if got.dtype in (torch.int8, FP8):
        a, b = got.float(), want.float()
        # A value near the middle between two codes may become either of them.
        allowed = torch.full_like(b, 1.01) if got.dtype == torch.int8 else b.abs() * 0.15 + 2**-8
    else:
        relative, absolute = TOLERANCE[got.dtype]
        a, b = got.float(), want.float()
        allowed = slack * (b.abs() * relative + b.square().mean().sqrt() * absolute)
    wrong = int((~((a - b).abs() <= allowed)).sum())
    if wrong:
        raise Different(
            f"{wrong} of {got.numel()} elements differ, by up to {float((a - b).abs().max()):.3g}"
        )
