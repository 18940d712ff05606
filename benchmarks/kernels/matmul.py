# SPDX-License-Identifier: Apache-2.0
"""Matrix products of a model's linear layer; the weight is packed once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from kernels.workload import FP8, Workload, builds, op, rand, simple, size

if TYPE_CHECKING:
    from kernels.cases import Case

#: Compiled code calls the same product; only an autotuned template would differ.
SAME = "the compiler calls the same library"
PRIMITIVES = 128


class Handler:
    """A packed weight of the library, which is released at the end."""

    def __init__(self, create: str, *arguments: Any) -> None:
        self._release = op("release_dnnl_matmul_handler")
        self._handler = op(create)(*arguments)
        self.tensor = torch.tensor(self._handler, dtype=torch.int64)

    def __del__(self) -> None:
        """Release the memory."""
        if hasattr(self, "_handler"):
            self._release(self._handler)


@builds("onednn_mm")
def _mm(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens, hidden, width = case.shape["tokens"], case.shape["hidden"], case.shape["out"]
    x, weight = (
        rand(tokens, hidden, dtype=dtype),
        rand(width, hidden, dtype=dtype, scale=hidden**-0.5),
    )
    out = torch.empty(tokens, width, dtype=dtype)

    def bind() -> Any:
        function, handler = op(name), Handler("create_onednn_mm_handler", weight.t(), PRIMITIVES)
        return lambda: function(out, x, None, handler.tensor)

    return Workload(
        bind,
        lambda x, w: (functional.linear(x, w),),
        (x, weight),
        (out,),
        size(x, weight),
        size(out),
        flops=2.0 * tokens * hidden * width,
        no_compile=SAME,
        cold=True,
    )


@builds("onednn_scaled_mm")
def _scaled_mm(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens, hidden, width = case.shape["tokens"], case.shape["hidden"], case.shape["out"]
    x = torch.randint(-127, 128, (tokens, hidden), dtype=torch.int8)
    # Weights have 7 bits. Without VNNI, the official library adds pairs of products in 16 bits,
    # which would saturate for larger weights, by up to a fifth of the largest result. Its results
    # would then differ, and it would not be timed.
    weight = torch.randint(-63, 64, (width, hidden), dtype=torch.int8)
    token_scales, scales = torch.rand(tokens, 1) * 1e-2 + 1e-3, torch.rand(1, width) * 1e-3 + 1e-4
    out = torch.empty(tokens, width, dtype=dtype)

    def bind() -> Any:
        function = op(name)
        handler = Handler(
            "create_onednn_scaled_mm_handler", weight.t(), scales, dtype, True, False, PRIMITIVES
        )
        return lambda: function(out, x, token_scales, None, None, None, handler.tensor)

    def in_torch(
        x: torch.Tensor, weight: torch.Tensor, token_scales: torch.Tensor, scales: torch.Tensor
    ) -> tuple[torch.Tensor]:
        return ((torch._int_mm(x, weight.t()).float() * token_scales * scales).to(dtype),)  # noqa: SLF001 - no public name

    return Workload(
        bind,
        in_torch,
        (x, weight, token_scales, scales),
        (out,),
        size(x, weight),
        size(out),
        flops=2.0 * tokens * hidden * width,
        arithmetic="int8",
        no_compile=SAME,
        cold=True,
    )


#: Smallest number of rows that torch's int8 product accepts.
INT8_ROWS = 17


def _int8_product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    rows = x.shape[0]
    return torch._int_mm(functional.pad(x, (0, 0, 0, max(0, INT8_ROWS - rows))), weight.t())[:rows]  # noqa: SLF001 - no public name


@builds("cutlass_scaled_mm")
def _cutlass(name: str, case: Case, dtype: torch.dtype) -> Workload:
    tokens, hidden, width = case.shape["tokens"], case.shape["hidden"], case.shape["out"]
    eight = {"fp8": FP8, "int8": torch.int8}[case.variant]
    if eight is FP8:
        x, weight = (
            rand(tokens, hidden, dtype=dtype).to(FP8),
            rand(width, hidden, dtype=dtype).to(FP8),
        )
    else:
        x, weight = (
            torch.randint(-127, 128, (tokens, hidden), dtype=eight),
            torch.randint(-127, 128, (width, hidden), dtype=eight),
        )
    token_scales, scales = torch.rand(tokens, 1) * 1e-2 + 1e-3, torch.rand(1, width) * 1e-3 + 1e-4
    out = torch.empty(tokens, width, dtype=dtype)

    def in_torch(
        x: torch.Tensor, weight: torch.Tensor, token_scales: torch.Tensor, scales: torch.Tensor
    ) -> tuple[torch.Tensor]:
        if eight is torch.int8:
            return ((_int8_product(x, weight).float() * token_scales * scales).to(dtype),)
        if x.is_cuda:
            return (torch._scaled_mm(x, weight.t(), token_scales, scales, out_dtype=dtype),)  # noqa: SLF001 - no public name
        return ((x.float() @ weight.float().t() * token_scales * scales).to(dtype),)

    return simple(
        (name, "_C"),
        (out, x, weight.t(), token_scales, scales, None),
        in_torch,
        (x, weight, token_scales, scales),
        (out,),
        flops=2.0 * tokens * hidden * width,
        arithmetic=str(eight).removeprefix("torch."),
        no_compile=SAME,
        cold=True,
    )
