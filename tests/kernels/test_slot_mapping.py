# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("KERNEL_TEST_EXAMPLES", "50"))
UNTOUCHED = -77


def run(ops: Any, starts: torch.Tensor, positions: torch.Tensor, table: torch.Tensor, block: int,
        room: int = 0) -> torch.Tensor:  # fmt: skip
    slots = torch.full((len(positions) + room,), UNTOUCHED)
    ops.compute_slot_mapping_kernel_impl(starts, positions, table, slots, block)
    return slots


@given(
    counts=st.lists(st.integers(0, 40), max_size=6),
    block=st.integers(1, 20),
    columns=st.integers(1, 9),
    pad=st.integers(0, 3),
    shuffled=st.booleans(),
)
@settings(deadline=None, max_examples=EXAMPLES)
def test_slots(
    ops: Any, *, counts: list[int], block: int, columns: int, pad: int, shuffled: bool
) -> None:
    """Positions that follow each other and that do not; tables with more rows and columns."""
    requests, tokens = len(counts), sum(counts)
    table = torch.randint(0, 2**31 - 1, (requests + pad, columns + pad), dtype=torch.int32)
    table = table[:, :columns]
    request = torch.repeat_interleave(torch.arange(requests), torch.tensor(counts).long())
    positions = torch.randint(0, columns * block, (tokens,))
    if not shuffled and tokens:
        positions = (positions[0] + torch.arange(tokens)) % (columns * block)
    starts = torch.tensor([0, *torch.tensor(counts).long().cumsum(0)], dtype=torch.int32)
    want = table[request, positions // block].long() * block + positions % block
    got = run(ops, starts, positions, table, block, room=pad)
    assert torch.equal(got[:tokens], want)
    assert (got[tokens:] == UNTOUCHED).all()


def test_many_requests_on_all_threads(ops: Any) -> None:
    requests, length, block = 300, 500, 16
    table = torch.randint(0, 2**20, (requests, 32), dtype=torch.int32)
    positions = torch.arange(length).repeat(requests)
    starts = torch.arange(0, requests * length + 1, length, dtype=torch.int32)
    row = torch.arange(requests).repeat_interleave(length)
    want = table[row, positions // block].long() * block + positions % block
    assert torch.equal(run(ops, starts, positions, table, block), want)


STARTS, POSITIONS = torch.tensor([0, 2, 5], dtype=torch.int32), torch.arange(5)
TABLE = torch.arange(4, dtype=torch.int32).view(2, 2)
BAD = {
    "long starts": ({"starts": STARTS.long()}, "query_start_loc is of dtype Long, expected Int"),
    "no start": ({"starts": STARTS[:0]}, r"query_start_loc has shape \[0\]"),
    "falling": (
        {"starts": STARTS.flip(0)},
        "query_start_loc has 2 at 1, expected numbers from 5 to the number of tokens, 5",
    ),
    "negative start": ({"starts": STARTS - 1}, "query_start_loc has -1 at 0"),
    "end": ({"starts": STARTS + 1}, "query_start_loc has 6 at 2"),
    "int positions": ({"positions": POSITIONS.int()}, "positions is of dtype Int, expected Long"),
    "apart": ({"positions": torch.arange(10)[::2]}, "positions has strides"),
    "long table": ({"table": TABLE.long()}, "block_table is of dtype Long, expected Int"),
    "columns": ({"table": TABLE.t()}, "block_table has strides"),
    "few rows": (
        {"table": TABLE[:1]},
        r"block_table has shape \[1, 2\], expected a row for each of the 2 requests",
    ),
    "beyond the table": (
        {"positions": POSITIONS + 6},
        "token 2 of request 1 has position 8, expected one of the 2 blocks of 4 tokens",
    ),
    "negative position": (
        {"positions": POSITIONS - 3},
        "token 0 of request 0 has position -3, expected one of the 2 blocks",
    ),
    "negative block": (
        {"table": TABLE - 3},
        "token 0 of request 0 has block -3 in block_table, expected at least 0",
    ),
    "block size": ({"block": 0}, "block_size is 0, expected at least 1"),
    "huge blocks": ({"block": 2**31}, "block_size is 2147483648, expected less than 2"),
    "few slots": ({"room": -1}, r"slot_mapping has shape \[4\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(ops: Any, case: str) -> None:
    changes, message = BAD[case]
    good = {"starts": STARTS, "positions": POSITIONS, "table": TABLE, "block": 4}
    assert run(ops, **good).tolist() == [0, 1, 10, 11, 12]
    with pytest.raises(RuntimeError, match=f"compute_slot_mapping_kernel_impl: {message}"):
        run(ops, **(good | changes))
