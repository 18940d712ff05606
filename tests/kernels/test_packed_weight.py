# SPDX-License-Identifier: Apache-2.0
"""Products with the weights that upstream's engine packs into tensors.

A few rows use vectors on every CPU; more use tiles where the CPU has AMX.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES = int(os.environ.get("KERNEL_TEST_EXAMPLES", "50"))


def product(
    ops: Any, a: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    out = torch.full((len(a), len(weight)), math.nan, dtype=a.dtype)
    ops.weight_packed_linear(out, a, ops.convert_weight_packed(weight), bias, True)
    return out


@given(
    rows=st.integers(0, 70),
    depth=st.integers(0, 130),
    columns=st.integers(0, 100),
    pad=st.integers(0, 3),
    biased=st.booleans(),
)
@settings(deadline=None, max_examples=EXAMPLES)
def test_product(
    ops: Any,
    dtype: torch.dtype,
    strided: Callable[..., torch.Tensor],
    check_sums: Callable[..., None],
    *,
    rows: int,
    depth: int,
    columns: int,
    pad: int,
    biased: bool,
) -> None:
    """All sizes around those of vectors and tiles, and rows that are apart."""
    a, weight = strided((rows, depth), dtype, pad=pad), strided((columns, depth), dtype, pad=pad)
    bias = torch.randn(columns) if biased else None
    check_sums(product(ops, a, weight, bias), weight, a, bias)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 16, 17, 32, 33, 200])
@pytest.mark.parametrize(("columns", "depth"), [(8, 2880), (128, 2048), (256, 2048), (520, 32)])
def test_sizes_of_models(
    ops: Any,
    dtype: torch.dtype,
    check_sums: Callable[..., None],
    *,
    rows: int,
    columns: int,
    depth: int,
) -> None:
    """Routers of mixtures, and more panels than are multiplied at once."""
    a, weight = torch.randn(rows, depth).to(dtype), torch.randn(columns, depth).to(dtype)
    check_sums(product(ops, a, weight), weight, a)


def test_one_thread_computes_the_same(ops: Any, dtype: torch.dtype) -> None:
    a, weight = torch.randn(300, 512).to(dtype), torch.randn(200, 512).to(dtype)
    many, threads = product(ops, a, weight), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert torch.equal(product(ops, a, weight), many)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("rows", [3, 40])
def test_rows_and_columns_do_not_mix(ops: Any, dtype: torch.dtype, rows: int) -> None:
    """NaN and infinity stay in their rows and columns, at every place of them."""
    a, weight = torch.ones(rows, 50, dtype=dtype), torch.ones(37, 50, dtype=dtype)
    clean = product(ops, a, weight)
    for bad in (math.nan, math.inf):
        for place in (0, 31, 49):
            broken = a.clone()
            broken[rows // 2, place] = bad
            got = product(ops, broken, weight)
            assert not got[rows // 2].isfinite().any()
            got[rows // 2] = clean[rows // 2]
            assert torch.equal(got, clean)
            broken = weight.clone()
            broken[36, place] = bad
            got = product(ops, a, broken)
            assert not got[:, 36].isfinite().any()
            assert torch.equal(got[:, :36], clean[:, :36])


def test_any_strides_are_packed(ops: Any, dtype: torch.dtype) -> None:
    weight = torch.randn(33, 21).to(dtype)
    packed = ops.convert_weight_packed(weight)
    assert torch.equal(ops.convert_weight_packed(weight.t().contiguous().t()), packed)
    assert torch.equal(ops.convert_weight_packed(weight[::2]),
                       ops.convert_weight_packed(weight[::2].contiguous()))  # fmt: skip


def test_the_engine_s_use(ops: Any, check_sums: Callable[..., None]) -> None:
    """What vllm/model_executor/layers/utils.py does with a weight of up to 1 MiB."""
    x, weight = torch.randn(2, 3, 64).bfloat16(), torch.randn(48, 64).bfloat16()
    out, bias = torch.empty(2, 3, 48, dtype=torch.bfloat16), torch.randn(48)
    ops.weight_packed_linear(
        out.reshape(-1, 48), x.reshape(-1, 64), ops.convert_weight_packed(weight), bias, True
    )
    check_sums(out.view(6, 48), weight, x.view(6, 64), bias)


OUT, A, WEIGHT = torch.zeros(3, 20), torch.zeros(3, 7), torch.zeros(20, 7)
BIAS = torch.zeros(20)
BAD = {
    "other N": (
        {"out": torch.zeros(3, 21), "bias": None},
        r"mat2 is packed from shape \[20, 7\], expected \[21, 7\]: \[N, K\]",
    ),
    "other K": (
        {"a": torch.zeros(3, 8)},
        r"mat2 is packed from shape \[20, 7\], expected \[20, 8\]",
    ),
    "not packed": ({"packed": WEIGHT}, r"mat2 has shape \[20, 7\], expected that of a result"),
    "other content": ({"packed": torch.zeros(300)}, "mat2 is not packed, expected a result of"),
    "empty": ({"packed": torch.zeros(0)}, "mat2 is not packed, expected a result of"),
    "other dtype": ({"a": A.bfloat16()}, "mat2 is of dtype Float, expected BFloat16"),
    "apart": ({"packed": torch.zeros(40)[::2]}, "mat2 has strides"),
    "integers": ({"a": A.int()}, "mat1 is of dtype Int"),
    "columns": ({"a": torch.zeros(7, 3).t()}, "mat1 has strides"),
    "one dimension": ({"a": A[0]}, r"mat1 has shape \[7\], expected \[M, K\]"),
    "few rows": ({"out": OUT[:2]}, r"out has shape \[2, 20\], expected \[3, 20\]"),
    "double": ({"out": OUT.double()}, "out is of dtype Double, expected Float"),
    "one row": ({"out": OUT[:1].expand(3, 20)}, "out has strides"),
    "bias": ({"bias": BIAS[:5]}, r"bias has shape \[5\], expected \[20\]: the N of out"),
    "bias dtype": ({"bias": BIAS.bfloat16()}, "bias is of dtype BFloat16, expected Float"),
    "plain": ({"is_vnni": False}, "is_vnni is False, expected True"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(ops: Any, case: str) -> None:
    changes, message = BAD[case]
    good = {"out": OUT, "a": A, "packed": ops.convert_weight_packed(WEIGHT), "bias": BIAS,
            "is_vnni": True}  # fmt: skip
    ops.weight_packed_linear(*good.values())
    with pytest.raises(RuntimeError, match=f"^weight_packed_linear: {message}"):
        ops.weight_packed_linear(*(good | changes).values())


def test_a_part_of_a_packed_weight_is_refused(ops: Any) -> None:
    part = ops.convert_weight_packed(WEIGHT)[:-1].clone()
    with pytest.raises(RuntimeError, match=r"mat2 has shape \[1039\], expected \[1040\]: that of"):
        ops.weight_packed_linear(OUT, A, part, None, True)


def test_a_packed_weight_begins_with_a_cache_line(ops: Any) -> None:
    packed = ops.convert_weight_packed(WEIGHT)
    moved = torch.zeros(len(packed) + 16)[1 : 1 + len(packed)].copy_(packed)
    with pytest.raises(RuntimeError, match="mat2 is at an address that is not a multiple of 64"):
        ops.weight_packed_linear(OUT, A, moved, None, True)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (WEIGHT.to(torch.int8), "weight is of dtype Char, expected Float, BFloat16 or Half"),
        (WEIGHT.to(torch.float8_e4m3fn), "weight is of dtype Float8_e4m3fn"),
        (WEIGHT[None], r"weight has shape \[1, 20, 7\], expected \[N, K\]"),
    ],
    ids=["int8", "float8", "experts"],
)
def test_weights_that_cannot_be_packed(ops: Any, weight: torch.Tensor, message: str) -> None:
    with pytest.raises(RuntimeError, match=f"^convert_weight_packed: {message}"):
        ops.convert_weight_packed(weight)
