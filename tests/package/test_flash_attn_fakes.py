# SPDX-License-Identifier: Apache-2.0
"""Fakes of FlashAttention 3's ops for torch.compile: shapes, computed without the library."""

from __future__ import annotations

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="torch is not installed here")

from vllm._kernels import fakes  # noqa: E402 - needs torch

#: Sequences, queries, keys, head size, rows of a page, causal, window; and the number of elements
#: that csrc/attention/flash3/schedule.cc computes.
DIVIDED = [
    ((3, 5, 100, 64, None, False, (-1, -1)), 4 * 3 + 1),
    ((4, 5, 100, 64, 16, True, (-1, -1)), 4 * 4 + 1),
    ((5, 5, 100, 64, 16, True, (20, 0)), 8 * 3 + 1),
    ((5, 5, 100, 64, 16, False, (99, 4)), 8 * 3 + 1),  # sees all
    ((5, 5, 100, 64, 16, False, (3, 2)), 8 * 3 + 1),
    ((1, 1, 100, 64, 16, True, (-1, -1)), 4 * 3 + 1),
    ((1, 1, 100, 128, None, True, (-1, -1)), 4 * 3 + 1),
    ((1, 1, 100, 128, 16, True, (-1, -1)), 4 * 4 + 1),
    ((0, 0, 0, 64, 16, True, (-1, -1)), 1),
]


@pytest.mark.parametrize(("given", "numbers"), DIVIDED)
def test_division(given: tuple[Any, ...], numbers: int) -> None:
    batch, queries, keys, size, page, causal, window = given
    lengths = torch.empty(batch, dtype=torch.int32, device="meta")
    sizes = (batch, queries, keys, 4, 2, size, size, torch.bfloat16, lengths)
    made: Any = fakes.RETURNED["_vllm_fa3_C::get_scheduler_metadata"](
        *sizes, *[None] * 5, page, 0, causal, *window, False, 0, None, 0
    )
    assert (made.shape, made.dtype, made.device.type) == ((numbers,), torch.int32, "meta")


def test_attention() -> None:
    def shapes(q: Any, out: Any = None, cu_seqlens_q: Any = None) -> list[tuple[int, ...]]:
        made: Any = fakes.RETURNED["_vllm_fa3_C::fwd"](
            q, q, q, None, None, None, out, cu_seqlens_q, *[None] * 29
        )
        return [tuple(tensor.shape) for tensor in made]

    packed, batch = torch.empty(5, 4, 64, device="meta"), torch.empty(2, 3, 4, 64, device="meta")
    assert shapes(packed, cu_seqlens_q=torch.empty(3, device="meta")) == [
        (5, 4, 64),
        (4, 5),
        (0,),
        (0,),
    ]
    assert shapes(batch) == [(2, 3, 4, 64), (2, 4, 3), (0,), (0,)]
    assert shapes(batch, out=torch.empty(9, 3, 4, 64, device="meta"))[0] == (9, 3, 4, 64)
