# SPDX-License-Identifier: Apache-2.0
"""The sum of the experts' results."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from row_cases import Check, Strided


#: A case about the contents of a tensor.
CONTENTS = partial(pytest.param, marks=pytest.mark.contents)


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (3, 2, 7), (5, 8, 33), (2, 3, 4099), (0, 2, 8), (3, 0, 8), (2, 2, 0), (9, 2, 4096)],
    ids=str,
)
def test_sum(moe: Any, check: Check, dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    x = torch.randn(shape).to(dtype)
    out = torch.full((shape[0], shape[2]), math.nan, dtype=dtype)
    moe.moe_sum(x, out)
    check(out, x.double().sum(1))


@given(
    tokens=st.integers(1, 9),
    topk=st.integers(1, 5),
    hidden=st.integers(1, 80),
    mapped=st.booleans(),
    data=st.data(),
)
def test_sum_of_taken_rows(
    moe: Any,
    check: Check,
    strided: Strided,
    dtype: torch.dtype,
    *,
    tokens: int,
    topk: int,
    hidden: int,
    mapped: bool,
    data: Any,
) -> None:
    order = data.draw(st.sampled_from([(0, 1), (1, 0)]))
    x = strided((tokens, topk, hidden), dtype, pad=data.draw(st.integers(0, 9)), order=order)
    ids = torch.randint(
        -1, 6, (tokens, topk), dtype=data.draw(st.sampled_from([torch.int32, torch.int64]))
    )
    where = torch.tensor([0, -1, 1, -1, 2, -1], dtype=torch.int32) if mapped else None
    taken = (ids >= 0) & ((ids % 2 == 0) | (not mapped))
    x[~taken] = math.nan
    out = strided((tokens, hidden), dtype, pad=3)
    moe.moe_sum(x, out, ids, where)
    check(out, x.double().masked_fill(~taken.unsqueeze(-1), 0).sum(1))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({0: torch.zeros(3, 8)}, r"input has shape \[3, 8\], expected \[tokens, topk, hidden\]"),
        ({1: torch.zeros(2, 8)}, r"output has shape \[2, 8\], expected \[3, 8\]"),
        ({1: torch.zeros(3, 8).half()}, "output is of dtype Half, expected Float"),
        (
            {2: torch.zeros(3, 1, dtype=torch.int32)},
            r"topk_ids has shape \[3, 1\], expected \[3, 2\]",
        ),
        CONTENTS(
            {2: torch.full((3, 2), 4)},
            r"topk_ids\[0, 0\] is 4, expected at least -1 and below the 4 experts of expert_map",
        ),
        CONTENTS({2: torch.full((3, 2), -2)}, r"topk_ids\[0, 0\] is -2, expected at least -1"),
        ({2: None}, "expert_map is given without topk_ids"),
    ],
)
def test_bad_sum_arguments(moe: Any, changed: dict[int, Any], message: str) -> None:
    arguments = [
        torch.zeros(3, 2, 8),
        torch.zeros(3, 8),
        torch.zeros(3, 2, dtype=torch.int32),
        torch.zeros(4, dtype=torch.int32),
    ]
    for position, value in changed.items():
        arguments[position] = value
    with pytest.raises(RuntimeError, match=f"^moe_sum: {message}"):
        moe.moe_sum(*arguments)
