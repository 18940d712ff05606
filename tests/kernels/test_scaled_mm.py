# SPDX-License-Identifier: Apache-2.0
"""Scaled products of eight-bit matrices.

The checks of arguments are tested wherever GPU kernels are. Results need a GPU, because CUTLASS's
kernels are not emulated. In the emulation, a correct call fails because there is no kernel, which
is tested too.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from vllm._kernels import ops

ON_GPU = os.environ.get("KERNEL_TEST_DEVICE") == "cuda"
WHY_NOT = (
    "" if ON_GPU else "CUTLASS's kernels are not emulated: run tests/kernels/on_gpu.py on a GPU"
)

INT8, FP8 = torch.int8, torch.float8_e4m3fn


def matrix(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    if dtype == INT8:
        return torch.randint(-128, 128, (rows, columns), dtype=dtype)
    return torch.randn(rows, columns).to(dtype)


def operands(
    m: int, n: int, k: int, dtype: torch.dtype = INT8
) -> tuple[torch.Tensor, torch.Tensor]:
    """A, and B column-major."""
    return matrix(m, k, dtype), matrix(n, k, dtype).t()


def capability() -> int:
    major, minor = torch.cuda.get_device_capability()
    return int(major * 10 + minor)


def require(dtype: torch.dtype) -> None:
    """Skip on GPUs without a kernel; on others, a build without kernels fails."""
    served = {INT8: (*range(80, 90), 90), FP8: (89, 90)}[dtype]
    if capability() not in served:
        pytest.skip(f"no kernel of {dtype} is written for compute capability {capability()}")


def check(
    got: torch.Tensor,
    sums: torch.Tensor,
    factor: torch.Tensor,
    bias: torch.Tensor | None,
    size: torch.Tensor | None = None,
) -> None:
    """Compare with float64.

    If sums are not exact, ``size`` is the root of the sum of the squares of the terms. Tensor cores
    keep 13 bits after the point of the largest term in each step; for 4096 terms the error is some
    hundredths of ``size``.
    """
    want = sums * factor + (0 if bias is None else bias.double())
    rounding = 2.0**-8 if got.dtype == torch.bfloat16 else 2.0**-11
    room = rounding * want.abs() + 2.0**-20 * (sums * factor).abs() + 1e-6
    if size is not None:
        room = room + 2.0**-5 * size * factor.abs()
    off = (got.double() - want).abs() - room
    assert off.max() <= 0, (
        f"{off.max()} above the bound, at {divmod(int(off.argmax()), got.shape[1])}"
    )


# Both sides of the sizes where another kernel is chosen, and partial tiles.
ROWS = [1, 15, 16, 17, 64, 65, 128, 129, 300]


@pytest.mark.gpu
@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
@pytest.mark.parametrize("out_dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", [INT8, FP8], ids=str)
@pytest.mark.parametrize("m", ROWS)
@pytest.mark.parametrize(("n", "k"), [(16, 16), (48, 144), (256, 512), (1040, 4096)])
@pytest.mark.parametrize("a_each", [True, False])
@pytest.mark.parametrize("b_each", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_product(
    m: int,
    n: int,
    k: int,
    dtype: torch.dtype,
    out_dtype: torch.dtype,
    *,
    a_each: bool,
    b_each: bool,
    with_bias: bool,
) -> None:
    require(dtype)
    a, b = operands(m, n, k, dtype)
    # Results must fit into float16.
    size = 0.1 if dtype == FP8 else 1e-4
    a_scales, b_scales = (
        torch.rand(m if a_each else 1, 1) * size + size,
        torch.rand(1, n if b_each else 1) + 0.5,
    )
    bias = torch.randn(n).to(out_dtype) if with_bias else None
    got = ops.cutlass_scaled_mm(a, b, a_scales, b_scales, out_dtype, bias)
    assert got.shape == (m, n)
    assert got.dtype == out_dtype
    x, y = a.double(), b.double()
    check(
        got,
        x @ y,
        a_scales.double() * b_scales.double(),
        bias,
        (x.square() @ y.square()).sqrt() if dtype == FP8 else None,
    )


@pytest.mark.gpu
@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
@pytest.mark.parametrize("m", ROWS)
@pytest.mark.parametrize("each", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_zero_points(m: int, *, each: bool, with_bias: bool) -> None:
    require(INT8)
    n, k = 272, 1024
    a, b = operands(m, n, k)
    a_scales, b_scales = torch.rand(m, 1) * 1e-4, torch.rand(1, n)
    bias = torch.randn(n).bfloat16() if with_bias else None
    zeros = torch.randint(-128, 128, (m, 1) if each else (1,), dtype=torch.int32)
    column_sums = b.sum(0, dtype=torch.int32)
    if each:
        got = ops.cutlass_scaled_mm_azp(
            a, b, a_scales, b_scales, torch.bfloat16, column_sums, zeros, bias
        )
    else:
        got = ops.cutlass_scaled_mm_azp(
            a, b, a_scales, b_scales, torch.bfloat16, column_sums * zeros, None, bias
        )
    exact = (a.double() - zeros.double()) @ b.double()
    check(got, exact, a_scales.double() * b_scales.double(), bias)


@pytest.mark.gpu
@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
@pytest.mark.parametrize("dtype", [INT8, FP8], ids=str)
def test_strides_and_leading_dimensions(ops: Any, dtype: torch.dtype) -> None:
    require(dtype)
    m, n, k = 21, 96, 160
    a = torch.cat((matrix(m, k, dtype), matrix(m, 16, dtype)), 1)[:, :k]
    b = torch.cat((matrix(n, k, dtype), matrix(n, 32, dtype)), 1)[:, :k].t()
    scales = torch.full((1,), 1e-3)
    room = torch.full((m, n + 16), 7.0, dtype=torch.bfloat16)
    ops.cutlass_scaled_mm(room[:, :n], a, b, scales, scales, None)
    whole = ops.cutlass_scaled_mm(
        a.contiguous(), b.t().contiguous().t(), scales, scales, torch.bfloat16
    )
    assert torch.equal(room[:, :n], whole)
    assert torch.equal(room[:, n:], torch.full((m, 16), 7.0, dtype=torch.bfloat16))
    deep = ops.cutlass_scaled_mm(a.contiguous().view(3, 7, k), b, scales, scales, torch.bfloat16)
    assert torch.equal(deep, whole.view(3, 7, n))


@pytest.mark.gpu
@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
def test_the_other_architectures_are_named(ops: Any) -> None:
    assert ops is not None
    if capability() in (89, 90):
        pytest.skip(f"there are kernels of float8 for compute capability {capability()}")
    a, b = operands(16, 16, 16, FP8)
    with pytest.raises(
        RuntimeError,
        match=f"compute capability {capability() // 10}.{capability() % 10}, expected one that "
        "kernels",
    ):
        ops.cutlass_scaled_mm(a, b, torch.ones(1), torch.ones(1), torch.bfloat16)


@pytest.mark.skipif(ON_GPU, reason="only the emulation has no kernels")
@pytest.mark.parametrize("dtype", [INT8, FP8], ids=str)
def test_without_kernels(ops: Any, dtype: torch.dtype) -> None:
    assert ops is not None
    a, b = operands(16, 16, 16, dtype)
    with pytest.raises(
        RuntimeError,
        match=r"has compute capability 0\.0, expected one that kernels were compiled for: none",
    ):
        ops.cutlass_scaled_mm(a, b, torch.ones(1), torch.ones(1), torch.bfloat16)


def test_support() -> None:
    answers = {
        number: ops.cutlass_scaled_mm_supports_fp8(number)
        for number in (70, 75, 80, 86, 87, 89, 90, 100, 120)
    }
    assert {number for number, answer in answers.items() if answer} <= {89, 90}
    assert ON_GPU or not any(answers.values())
    assert not any(ops.cutlass_scaled_mm_supports_block_fp8(number) for number in answers)


@pytest.mark.parametrize("m", [0, 3])
def test_empty_inputs(m: int) -> None:
    n = 16 if m == 0 else 0
    a, b = operands(m, n, 32)
    ones = torch.ones(1)
    assert ops.cutlass_scaled_mm(a, b, ones, ones, torch.bfloat16).shape == (m, n)


M, N, K = 4, 32, 48


def arguments(**changed: Any) -> list[Any]:
    a, b = operands(M, N, K)
    given = {
        "out": torch.full((M, N), 7.0, dtype=torch.bfloat16),
        "a": a,
        "b": b,
        "a_scales": torch.ones(M, 1),
        "b_scales": torch.ones(1, N),
    }
    return list(({**given, "bias": None} | changed).values())


def fp8(rows: int, columns: int) -> torch.Tensor:
    return torch.zeros(rows, columns).to(FP8)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            lambda: {"a": matrix(M, K, INT8).short()},
            "a is of dtype Short, expected Char or Float8_e4m3fn",
        ),
        (lambda: {"a": fp8(M, K)}, "b is of dtype Char, expected Float8_e4m3fn, the dtype of a"),
        (lambda: {"out": torch.zeros(M, N)}, "out is of dtype Float, expected BFloat16 or Half"),
        (lambda: {"a": matrix(M, K, INT8)[0]}, r"a has shape \[48\], expected \[M, K\]"),
        (
            lambda: {"a": matrix(M, 40, INT8)},
            r"a has shape \[4, 40\], expected \[M, K\] with K a multiple of 16",
        ),
        (
            lambda: {"a": matrix(M, 0, INT8)},
            r"a has shape \[4, 0\], expected \[M, K\] with K a multiple of 16",
        ),
        (
            lambda: {"a": matrix(1, 131072, INT8)},
            r"a has shape \[1, 131072\], expected \[M, K\] with K of at most 131071",
        ),
        (
            lambda: {"b": matrix(24, K, INT8).t()},
            r"b has shape \[48, 24\], expected \[K, N\] with N a multiple of 16",
        ),
        (
            lambda: {"b": matrix(N, 64, INT8).t()},
            r"b has shape \[64, 32\], expected \[48, 32\]: \[K, N\] with the K of a",
        ),
        (
            lambda: {"b": matrix(K, N, INT8)},
            r"b has strides \[32, 1\], expected adjacent elements in columns: stride 1 .* 0",
        ),
        (
            lambda: {"b": matrix(N, K + 8, INT8)[:, :K].t()},
            r"b has strides \[1, 56\], expected adjacent elements in columns: .* multiple of 16",
        ),
        (
            lambda: {"b": matrix(1, K, INT8).expand(N, K).t()},
            r"b has strides \[1, 0\], expected adjacent elements in columns: .* at least 48",
        ),
        (
            lambda: {"a": matrix(K, M, INT8).t()},
            r"a has strides \[1, 4\], expected adjacent elements in rows: stride 1 in dimension 1",
        ),
        (
            lambda: {"a": matrix(M, K + 16, INT8)[:, 1 : K + 1]},
            "a begins at address .*, expected a multiple of 16 bytes",
        ),
        (
            lambda: {"out": torch.zeros(M, N + 8).bfloat16()[:, :N]},
            r"out has strides \[40, 1\], expected adjacent elements in rows",
        ),
        (
            lambda: {"out": torch.zeros(M + 1, N).bfloat16()},
            r"out has shape \[5, 32\], expected \[4, 32\]",
        ),
        (
            lambda: {"a_scales": torch.ones(M + 1)},
            r"a_scales has shape \[5\], expected one element or one for each row of a, 4",
        ),
        (
            lambda: {"a_scales": torch.ones(M).double()},
            "a_scales is of dtype Double, expected Float",
        ),
        (
            lambda: {"b_scales": torch.ones(M)},
            r"b_scales has shape \[4\], expected one element or one for each column of b, 32",
        ),
        (
            lambda: {"b_scales": torch.ones(N, 2)[:, 0]},
            r"b_scales has strides \[2\], expected a contiguous tensor",
        ),
        (lambda: {"bias": torch.ones(N)}, "bias is of dtype Float, expected BFloat16"),
        (
            lambda: {"bias": torch.ones(M).bfloat16()},
            r"bias has shape \[4\], expected one for each column of b, 32",
        ),
    ],
)
def test_refused(ops: Any, changed: Any, message: str) -> None:
    given = arguments(**changed())
    before = given[0].clone()
    with pytest.raises(RuntimeError, match=f"cutlass_scaled_mm: {message}"):
        ops.cutlass_scaled_mm(*given)
    assert torch.equal(given[0], before)


@pytest.mark.parametrize(
    ("azp_adj", "azp", "message"),
    [
        (lambda: torch.ones(N), lambda: None, "azp_adj is of dtype Float, expected Int"),
        (
            lambda: torch.ones(M).int(),
            lambda: None,
            r"azp_adj has shape \[4\], expected one for each column of b, 32",
        ),
        (
            lambda: torch.ones(N).int(),
            lambda: torch.ones(N).int(),
            r"azp has shape \[32\], expected one for each row of a, 4",
        ),
        (lambda: torch.ones(N).int(), lambda: torch.ones(M), "azp is of dtype Float, expected Int"),
    ],
)
def test_zero_points_refused(ops: Any, azp_adj: Any, azp: Any, message: str) -> None:
    *given, bias = arguments()
    with pytest.raises(RuntimeError, match=f"cutlass_scaled_mm_azp: {message}"):
        ops.cutlass_scaled_mm_azp(*given, azp_adj(), azp(), bias)


def test_zero_points_are_of_int8(ops: Any) -> None:
    *given, bias = arguments(a=fp8(M, K), b=fp8(N, K).t())
    with pytest.raises(
        RuntimeError, match="cutlass_scaled_mm_azp: a is of dtype Float8_e4m3fn, expected Char"
    ):
        ops.cutlass_scaled_mm_azp(*given, torch.ones(N).int(), None, bias)
