# SPDX-License-Identifier: Apache-2.0
"""Products of a few rows: arguments that are refused, by what is wrong with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vllm._kernels import loader

M, N, K = 10, 3, 64
HALF, FLOAT8 = torch.float16, torch.float8_e4m3fn


@pytest.fixture(autouse=True)
def _loaded() -> None:
    loader.load("_rocm_C")


def half(rows: int, columns: int) -> torch.Tensor:
    return torch.ones(rows, columns, dtype=HALF)


def refuse(op: str, given: dict[str, Any], changed: dict[str, Any], message: str) -> None:
    assert set(changed) <= set(given)
    with pytest.raises(RuntimeError, match=f"{op}: {message}"):
        getattr(torch.ops._rocm_C, op)(*(given | changed).values())


HALVES = [
    ({"in_a": half(M, K).float()}, "in_a is of dtype Float, expected BFloat16 or Half"),
    (
        {"in_b": half(N, K).bfloat16()},
        "in_b is of dtype BFloat16, expected Half, the dtype of in_a",
    ),
    ({"in_a": half(M, K)[0]}, r"in_a has shape \[64\], expected \[M, K\]"),
    ({"in_b": half(N, K)[None]}, r"in_b has shape \[1, 3, 64\], expected \["),
    (
        {"in_b": half(N, K + 1)},
        r"in_b has shape \[3, 65\], expected \[N, 64\]: the K of in_a",
    ),
    ({"in_a": half(K, M).t()}, r"in_a has strides \[1, 10\], expected stride 1 in the last"),
]
MORE = [
    ({"in_b": half(K, N).t()}, r"in_b has strides \[1, 3\], expected stride 1 in the last"),
    ({"CuCount": 0}, "CuCount is 0, expected at least 1"),
    ({"in_bias": torch.ones(M)}, "in_bias is of dtype Float, expected Half"),
    (
        {"in_bias": half(1, M + 1)[0]},
        r"in_bias has shape \[11\], expected one that can be broadcast to \[N, M\] = \[3, 10\]",
    ),
    ({"in_bias": half(2, M)}, r"in_bias has shape \[2, 10\], expected one that can be broadcast"),
    ({"in_bias": half(N, M)[None]}, r"in_bias has shape \[1, 3, 10\], expected one that can be"),
]


@pytest.mark.parametrize("op", ["wvSplitK", "wvSplitKrc"])
@pytest.mark.parametrize(("changed", "message"), HALVES + MORE)
def test_halves(op: str, changed: dict[str, Any], message: str) -> None:
    given = {"in_a": half(M, K), "in_b": half(N, K), "in_bias": None, "CuCount": 4}
    refuse(op, given, changed, message)


@pytest.mark.parametrize(("op", "most"), [("wvSplitK", 16), ("wvSplitKrc", 128)])
def test_too_many_rows(op: str, most: int) -> None:
    given = {"in_a": half(M, K), "in_b": half(most, K), "in_bias": None, "CuCount": 4}
    assert getattr(torch.ops._rocm_C, op)(*given.values()).shape == (most, M)
    message = (
        rf"in_b has shape \[{most + 1}, 64\], expected \[N, K\] with N of at most {most}; more"
    )
    refuse(op, given, {"in_b": half(most + 1, K)}, message)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        *(case for case in HALVES if "N, 64" not in case[1]),
        ({"in_b": half(2, K)}, r"in_b has shape \[2, 64\], expected \[1, K\]"),
        ({"in_b": half(0, K)}, r"in_b has shape \[0, 64\], expected \[1, K\]"),
        ({"rows_per_block": 0}, "rows_per_block is 0, expected at least 1"),
    ],
)
def test_one_row(changed: dict[str, Any], message: str) -> None:
    if "in_b" in changed and len(changed["in_b"]) == N:
        changed = {"in_b": changed["in_b"][:1]}
    given = {"in_a": half(M, K), "in_b": half(1, K), "rows_per_block": 4}
    refuse("LLMM1", given, changed, message)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"in_a": half(M, K)}, "in_a is of dtype Half, expected Float8_e4m3fn or Float8_e4m3fnuz"),
        (
            {"in_b": half(N, K).to(torch.float8_e4m3fnuz)},
            "in_b is of dtype Float8_e4m3fnuz, expected Float8_e4m3fn, the dtype of in_a",
        ),
        ({"in_a": half(M, K).to(torch.float8_e5m2)}, "in_a is of dtype Float8_e5m2, expected"),
        ({"in_b": half(N, K - 1).to(FLOAT8)}, r"in_b has shape \[3, 63\], expected \[N, 64\]"),
        ({"in_b": half(17, K).to(FLOAT8)}, r"in_b has shape \[17, 64\], expected .* at most 16"),
        ({"in_a": half(K, M).to(FLOAT8).t()}, r"in_a has strides \[1, 10\], expected stride 1"),
        ({"out_c": torch.ones(N, M)}, "out_c is of dtype Float, expected BFloat16 or Half"),
        ({"out_c": half(M, N)}, r"out_c has shape \[10, 3\], expected \[3, 10\]: \[N, M\]"),
        ({"out_c": half(M, N).t()}, r"out_c has strides \[1, 3\], expected stride 1 in the last"),
        (
            {"out_c": half(1, M).expand(N, M)},
            r"out_c has strides \[0, 1\], expected separate memory for each element",
        ),
        ({"in_bias": half(1, M).bfloat16()}, "in_bias is of dtype BFloat16, expected Half"),
        ({"scale_a": half(1, 1)}, "scale_a is of dtype Half, expected Float"),
        ({"scale_b": torch.ones(2)}, r"scale_b has shape \[2\], expected one element"),
        ({"CuCount": -1}, "CuCount is -1, expected at least 1"),
    ],
)
def test_float8(changed: dict[str, Any], message: str) -> None:
    given = {
        "in_a": half(M, K).to(FLOAT8),
        "in_b": half(N, K).to(FLOAT8),
        "in_bias": None,
        "out_c": half(N, M) * 7,
        "scale_a": torch.ones(1),
        "scale_b": torch.ones(1),
        "CuCount": 4,
    }
    refuse("wvSplitKQ", given, changed, message)
    assert (given["out_c"] == 7).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"in_a": half(M, K // 2)}, "in_a is of dtype Half, expected Char, Byte, Int or UInt32"),
        (
            {"in_a": torch.ones(M).int()},
            r"in_a has shape \[10\], expected \[M, K / 2\] bytes or \[M, K / 8\] words",
        ),
        (
            {"in_a": torch.ones(M, K // 8 + 1).int()},
            r"in_a has shape \[10, 9\], expected .* with K a multiple of 32, not 72",
        ),
        (
            {"in_a": torch.ones(M, 12).to(torch.int8), "group_size": -1},
            r"in_a has shape \[10, 12\], expected .* K a multiple of 16, not 24",
        ),
        ({"in_a": torch.ones(K // 8, M).int().t()}, r"in_a has strides \[1, 10\], expected stride"),
        ({"in_b": torch.ones(N, K)}, "in_b is of dtype Float, expected BFloat16 or Half"),
        ({"in_b": half(N, K // 2)}, r"in_b has shape \[3, 32\], expected \[N, 64\]"),
        ({"in_b": half(17, K)}, r"in_b has shape \[17, 64\], expected .* at most 16"),
        ({"in_scale": torch.ones(M, 2)}, "in_scale is of dtype Float, expected Half"),
        (
            {"in_scale": half(M, 1)},
            r"in_scale has shape \[10, 1\], expected \[10, 2\]: \[M, groups",
        ),
        ({"in_scale": half(2, M).t()}, r"in_scale has strides \[1, 2?10\], expected stride 1"),
        (
            {"in_zero_points": torch.ones(M, 2)},
            "in_zero_points is of dtype Float, expected Int, UInt32 or Half",
        ),
        (
            {"in_zero_points": torch.ones(M, 2).int()},
            r"in_zero_points has shape \[10, 2\], expected \[2, 2\]: \[M / 8, groups",
        ),
        (
            {"in_zero_points": half(2, 2)},
            r"in_zero_points has shape \[2, 2\], expected \[10, 2\]: the shape of in_scale",
        ),
        ({"in_bias": half(N, M).bfloat16()}, "in_bias is of dtype BFloat16, expected Half"),
        ({"CuCount": 0}, "CuCount is 0, expected at least 1"),
        ({"group_size": 16}, "group_size is 16, expected 32, 64, 128, or -1 for one group"),
        ({"group_size": 0}, "group_size is 0, expected 32"),
    ],
)
def test_int4(changed: dict[str, Any], message: str) -> None:
    given = {
        "in_a": torch.ones(M, K // 8).int(),
        "in_b": half(N, K),
        "in_scale": half(M, 2),
        "in_zero_points": None,
        "in_bias": None,
        "CuCount": 4,
        "group_size": 32,
    }
    refuse("wvSplitK_int4_g", given, changed, message)


def test_a_word_begins_at_a_multiple_of_its_size() -> None:
    memory = torch.zeros(M * K // 2 + 1, dtype=torch.uint8)
    words = memory[1:].as_strided((M, K // 2), (K // 2, 1))
    # Bytes may begin anywhere.
    got = torch.ops._rocm_C.wvSplitK_int4_g(words, half(N, K), half(M, 2), None, None, 4, 32)
    assert (got == -8 * K).all()


@pytest.mark.parametrize("op", ["wvSplitK", "wvSplitKrc"])
def test_a_depth_that_is_too_large(op: str) -> None:
    """Rows that share one element."""
    huge = half(1, 1).expand(1, 2**31)
    given = {"in_a": huge, "in_b": huge, "in_bias": None, "CuCount": 4}
    refuse(op, given, {}, "in_a has strides")
    empty = torch.empty(0, 2**31, dtype=HALF)
    refuse(op, given, {"in_a": empty, "in_b": empty}, r"K is 2147483648, expected at most 2147")
