# SPDX-License-Identifier: Apache-2.0
"""Errors of quantisation to float8."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from float8 import E4M3, FOREIGN, NAME, REFUSED


def call(ops: Any, name: str, **changes: Any) -> None:
    arguments: dict[str, Any] = {
        "result": torch.empty(4, 6, dtype=E4M3),
        "input": torch.ones(4, 6),
        "scale": torch.ones(4) if "token" in name else torch.ones(1),
    }
    if "token" in name:
        arguments["scale_ub"] = None
    getattr(ops, name)(**(arguments | changes))


NAMES = [
    "static_scaled_fp8_quant",
    "dynamic_scaled_fp8_quant",
    "dynamic_per_token_scaled_fp8_quant",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [0, 1, 4])
def test_more_rows_of_the_result_are_left_alone(ops: Any, name: str, rows: int) -> None:
    """The engine pads results for products that need a number of rows."""
    padded = torch.full((16, 6), 7.0).to(E4M3)
    exact = torch.empty(rows, 6, dtype=E4M3)
    arguments = {"input": torch.randn(rows, 6), "scale": torch.ones(16 if "token" in name else 1)}
    call(ops, name, **arguments, result=exact)
    call(ops, name, **arguments, result=padded)
    assert torch.equal(padded[:rows].float(), exact.float())
    assert torch.equal(padded[rows:].float(), torch.full((16 - rows, 6), 7.0))
    for refused in (torch.empty(16, 7, dtype=E4M3), torch.empty(1, 16, 6, dtype=E4M3)):
        with pytest.raises(RuntimeError, match=r"expected .*the shape of input, or more rows"):
            call(ops, name, **arguments, result=refused)


BAD = {
    "result of other shape": (
        {"result": torch.empty(4, 5, dtype=E4M3)},
        r"result has shape \[4, 5\], expected \[4, 6\]",
    ),
    "result of int8": (
        {"result": torch.empty(4, 6, dtype=torch.int8)},
        f"result is of dtype Char, expected {NAME} or Float8_e5m2",
    ),
    "result of another device": (
        {"result": torch.empty(4, 6, dtype=FOREIGN)},
        f"result {REFUSED}",
    ),
    "result over itself": (
        {"result": torch.empty(1, 6, dtype=E4M3).expand(4, 6)},
        r"result has strides \[0, 1\]",
    ),
    "integers": ({"input": torch.ones(4, 6, dtype=torch.int32)}, "input is of dtype Int"),
    "columns": ({"input": torch.ones(6, 4).t()}, r"input has strides \[1, 4\], expected stride 1"),
    "scalar": (
        {"input": torch.ones(()), "result": torch.empty((), dtype=E4M3)},
        "input has no dimension",
    ),
    "half scale": ({"scale": torch.ones(4).half()}, "scale is of dtype Half, expected Float"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(ops: Any, name: str, case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(RuntimeError, match=f"^{name}: {message}"):
        call(ops, name, **changes)


BAD_SCALES = {
    "one dimension alone": (
        torch.ones(4),
        None,
        r"scale has shape \[4\], expected also a group_shape",
    ),
    "three dimensions": (
        torch.ones(2, 2, 1),
        [2, 3],
        r"scale has shape \[2, 2, 1\], expected one element, or one or two dimensions",
    ),
    "no divisor": (
        torch.ones(3, 6),
        None,
        r"scale has shape \[3, 6\], expected divisors of the 4 tokens and 6 columns",
    ),
    "not the groups": (
        torch.ones(4, 6),
        [1, 2],
        r"scale has shape \[4, 6\], expected \[4, 3\]: groups",
    ),
    "too few": (torch.ones(5), [-1, 1], r"scale has shape \[5\], expected \[6\]: groups"),
    "two dimensions of groups in one": (
        torch.ones(12),
        [1, 2],
        r"scale has shape \[12\], expected \[4, 3\]",
    ),
    "group of zero": (
        torch.ones(4),
        [0, 1],
        r"scale has group_shape \[0, 1\], expected -1 or divisors of the 4 tokens",
    ),
    "group that does not divide": (
        torch.ones(4),
        [1, 4],
        r"scale has group_shape \[1, 4\], expected -1 or divisors of the 6 columns",
    ),
    "group of three": (
        torch.ones(4),
        [1, 1, 1],
        r"scale has group_shape \[1, 1, 1\], expected two numbers",
    ),
    "negative group": (torch.ones(4, 6), [-2, 1], r"scale has group_shape \[-2, 1\]"),
}


@pytest.mark.parametrize("case", BAD_SCALES)
def test_bad_scales(ops: Any, case: str) -> None:
    scale, group, message = BAD_SCALES[case]
    with pytest.raises(RuntimeError, match=f"^static_scaled_fp8_quant: {message}"):
        call(ops, "static_scaled_fp8_quant", scale=scale, group_shape=group)


def test_bad_dynamic_scales(ops: Any) -> None:
    with pytest.raises(
        RuntimeError,
        match=r"^dynamic_scaled_fp8_quant: scale has shape \[2\], expected one element",
    ):
        call(ops, "dynamic_scaled_fp8_quant", scale=torch.ones(2))
    with pytest.raises(
        RuntimeError,
        match=r"scale has shape \[3\] .* expected a contiguous tensor of 4 elements, one for each "
        r"token",
    ):
        call(ops, "dynamic_per_token_scaled_fp8_quant", scale=torch.ones(3))
    with pytest.raises(RuntimeError, match=r"scale has shape \[4\] and strides \[2\]"):
        call(ops, "dynamic_per_token_scaled_fp8_quant", scale=torch.ones(8)[::2])
    with pytest.raises(RuntimeError, match=r"scale_ub has shape \[2\], expected one element"):
        call(ops, "dynamic_per_token_scaled_fp8_quant", scale_ub=torch.ones(2))
