# SPDX-License-Identifier: Apache-2.0
"""Attention of single tokens over a paged cache, as ROCm has it."""

from __future__ import annotations

import itertools
import math
import runpy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from float8 import E4M3

if TYPE_CHECKING:
    from collections.abc import Callable

_CASE = runpy.run_path(str(Path(__file__).parent / "rocm_attention_case.py"))
Case, NAMES, expanded = _CASE["Case"], _CASE["NAMES"], _CASE["expanded"]
DTYPES = list(_CASE["ROUNDING"])
#: Lengths around the borders of tiles, blocks and partitions.
LENGTHS = (1, 15, 16, 17, 31, 33, 64, 255, 256, 257, 511, 513, 770)
#: Keys of a sequence, and in how many positions each kind of NaN is put.
NAN_LENGTHS = {1: None, 17: None, 300: 4}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("block", [16, 32, 48])
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (8, 2), (6, 1)])
def test_attention(dtype: torch.dtype, size: int, block: int, heads: int, kv_heads: int) -> None:
    Case(LENGTHS[::3], dtype, heads, kv_heads, size, block).check()


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("heads", [1, 3, 16])
def test_lengths(length: int, heads: int) -> None:
    Case((length,), torch.float16, heads, 1, block=32).check()


@pytest.mark.parametrize("ratio", [1, 2, 4, 5, 8, 15, 16, 17, 35])
def test_query_heads_that_share_a_head(ratio: int) -> None:
    Case((300, 20), torch.float16, 2 * ratio, 2).check()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("heads", [1, 4, 8])
def test_alibi(dtype: torch.dtype, heads: int) -> None:
    Case((1, 200, 300), dtype, 2 * heads, 2, alibi=True).check()


@pytest.mark.parametrize("code", list(NAMES), ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("heads", "size", "block"), [(1, 64, 16), (1, 128, 32), (4, 128, 16), (8, 64, 32), (8, 128, 16)]
)
def test_float8_caches(
    code: torch.dtype, dtype: torch.dtype, heads: int, size: int, block: int
) -> None:
    Case((5, 48, 271), dtype, heads, 1, size, block, code).check()


@pytest.mark.parametrize("code", list(NAMES), ids=str)
@pytest.mark.parametrize("heads", [1, 8])
def test_every_code(code: torch.dtype, heads: int) -> None:
    # One key has weight one, so that the result is the value of each code in turn.
    for first in range(0, 256, 64):
        case = Case((16,), torch.float16, heads, 1, code=code)
        codes = torch.arange(first, first + 64, dtype=torch.uint8)
        case.value_cache.view(torch.uint8)[case.table[0, 0]] = codes[:, None].expand(64, 16)
        case.value_scale = 1.0
        want = codes.view(code).float().to(torch.float16).expand(1, heads, 64)
        assert torch.equal(case.run().nan_to_num(7777.0), want.nan_to_num(7777.0))


@pytest.mark.parametrize("heads", [1, 8])
def test_bytes_have_the_format_of_the_device(heads: int) -> None:
    case = Case((40,), heads=heads, kv_heads=1, code=E4M3)
    want = case.run().clone()
    case.key_cache, case.value_cache = (
        cache.view(torch.uint8) for cache in (case.key_cache, case.value_cache)
    )
    case.out.fill_(math.nan)
    assert torch.equal(case.run(), want)


@pytest.mark.parametrize("code", [None, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("heads", [1, 8])
@pytest.mark.parametrize("block", [16, 32])
def test_interleaved_values(code: torch.dtype | None, heads: int, block: int) -> None:
    case = Case((70, 260), heads=heads, kv_heads=1, block=block, code=code, interleaved=True)
    case.check()
    # Upstream hands the same memory over with the other layout's shape.
    want = case.out.clone()
    case.value_cache = case.value_cache.view(-1, 1, case.size, case.block)
    assert torch.equal(case.run(), want)


@pytest.mark.parametrize("code", list(NAMES), ids=str)
@pytest.mark.parametrize("length", [100, 300])
def test_float8_results(code: torch.dtype, length: int) -> None:
    case = Case((length,))
    want = case.run().clone()
    # Some results are beyond the largest number, and some below the smallest.
    scale = torch.tensor(want.abs().max().item() / 500)
    out = torch.zeros(want.shape, dtype=code)
    case.more = {"out": out, "fp8_out_scale": scale}
    case.run()
    largest = torch.finfo(code).max
    exact = (case.reference() / scale.double()).clamp(-largest, largest)
    # Half a unit of three bits, and what the result itself differs by.
    torch.testing.assert_close(out.double(), exact, rtol=2**-4 + 2**-7, atol=3.0)
    assert (out.double().abs() == largest).any()


def test_float8_results_round_to_nearest() -> None:
    # One key each: the results are its values.
    numbers = torch.linspace(-600, 600, 64 * 40).view(40, 1, 64)
    for code in NAMES:
        case = Case((1,) * 40, torch.float16, 1, 1)
        for sequence in range(40):
            case.value_cache[case.table[sequence, 0], 0, :, 0] = numbers[sequence, 0].half()
        out = torch.zeros(case.query.shape, dtype=code)
        case.more = {"out": out, "fp8_out_scale": torch.ones(1)}
        case.run()
        largest = torch.finfo(code).max
        want = numbers.half().float().clamp(-largest, largest).to(code)
        assert torch.equal(out.float(), want.float()), code
        assert not (out.view(torch.uint8) == 0x80).any() or code == torch.float8_e4m3fn


def test_nan_results_in_float8() -> None:
    for code in NAMES:
        case = Case((1,), heads=1, kv_heads=1)
        case.value_cache[case.table[0, 0]] = math.nan
        out = torch.zeros(case.query.shape, dtype=code)
        case.more = {"out": out, "fp8_out_scale": torch.ones(1)}
        assert case.run().float().isnan().all()


@pytest.mark.parametrize("heads", [1, 4, 8])
@pytest.mark.parametrize("number", [math.inf, -math.inf])
@pytest.mark.parametrize("length", [40, 300, 600])
def test_infinite_scores(heads: int, number: float, length: int) -> None:
    places = sorted({0, 7, 16, 39, length // 2, min(255, length - 1), length - 1})
    case = Case((length,) * len(places), torch.float16, heads, 1)
    scores = torch.randn(len(places), length).half()
    scores[torch.arange(len(places)), places] = number
    case.set_scores(scores)
    case.check()


@pytest.mark.parametrize("heads", [1, 4, 8])
@pytest.mark.parametrize("length", [40, 300])
def test_no_score_above_minus_infinity(heads: int, length: int) -> None:
    case = Case((length,), torch.float16, heads, 1)
    case.set_scores(torch.full((1, length), -math.inf).half())
    assert torch.equal(case.run(), torch.zeros_like(case.query))


@pytest.mark.parametrize(
    ("dtype", "heads"), [(torch.bfloat16, 1), (torch.float16, 4), (torch.bfloat16, 8)], ids=str
)
@pytest.mark.parametrize("length", NAN_LENGTHS)
def test_every_kind_of_nan(
    rows_with_nan: Callable[..., torch.Tensor], dtype: torch.dtype, heads: int, length: int
) -> None:
    scores = rows_with_nan(length, dtype, positions=NAN_LENGTHS[length])
    case = Case((length,) * len(scores), dtype, heads, 1)
    case.set_scores(scores)
    case.check()
    assert case.out.isnan().all()


@pytest.mark.parametrize("heads", [1, 4, 8])
def test_no_keys(heads: int) -> None:
    case = Case((0, 300, 0), heads=heads, kv_heads=1)
    case.check()
    assert torch.equal(case.out[0], torch.zeros_like(case.out[0]))


@pytest.mark.parametrize("heads", [1, 4, 8])
def test_large_scores(heads: int) -> None:
    case = Case((300,), torch.float16, heads, 1)
    case.scale = 30.0
    case.check()


@pytest.mark.parametrize("heads", [1, 8])
@pytest.mark.parametrize("ending", [(4, 5), (4, 4, 5)], ids=str)
def test_other_numbers_of_queries_are_skipped(heads: int, ending: tuple[int, ...]) -> None:
    # Sequences of two, one, one, … tokens; the last one of none or one.
    starts = (0, 2, 3, *ending)
    case = Case((50, 300, 260, 20, 30)[: len(starts) - 1], heads=heads, kv_heads=1)
    want = case.reference()
    case.query, single = torch.randn(6, heads, 64).to(case.dtype), case.query
    out = torch.full_like(case.query, 5.0)
    case.more = {"out": out, "query_start_loc": torch.tensor(starts, dtype=torch.int32)}
    touched = []
    for sequence in range(len(starts) - 1):
        if starts[sequence + 1] == starts[sequence] + 1:
            case.query[starts[sequence]] = single[sequence]
            touched.append(starts[sequence])
    case.run()
    for sequence, (start, end) in enumerate(itertools.pairwise(starts)):
        if end == start + 1:
            torch.testing.assert_close(out[start].double(), want[sequence], rtol=2**-7, atol=2**-8)
    rest = [row for row in range(6) if row not in touched]
    assert (out[rest] == 5.0).all()


def test_strides() -> None:
    case = Case((20, 300), heads=8, kv_heads=2)
    want = case.run().clone()
    case.query = torch.stack([case.query] * 3, 2)[:, :, 1]
    both = torch.stack((case.key_cache.flatten(2), case.value_cache.flatten(2)), 1)
    case.key_cache = both[:, 0].view(case.key_cache.shape)
    case.value_cache = both[:, 1].view(case.value_cache.shape)
    case.out = torch.full((2, 8, 3, 64), math.nan).to(case.dtype)[:, :, 2]
    case.table = torch.cat((case.table, torch.full_like(case.table, 10**6)), 1)[
        :, : case.table.shape[1]
    ]
    assert torch.equal(case.run(), want)


@pytest.mark.parametrize("heads", [1, 8])
@pytest.mark.parametrize("block", [-1, 10**6])
def test_blocks_outside_the_cache_are_left_out(heads: int, block: int) -> None:
    case = Case((300,), heads=heads, kv_heads=1)
    for rows in case.logical:
        rows[0] = torch.cat((rows[0][:, :16], rows[0][:, 32:]), 1)
    case.table[0, 1] = block
    got = case.run()
    case.lengths = (284,)
    torch.testing.assert_close(got.double(), case.reference(), rtol=2**-7, atol=2**-8)


def test_lengths_end_at_max_seq_len() -> None:
    case = Case((300, 300))
    case.more = {"seq_lens": torch.tensor([900, -3], dtype=torch.int32)}
    got = case.run()
    torch.testing.assert_close(got[0].double(), case.reference()[0], rtol=2**-7, atol=2**-8)
    assert torch.equal(got[1], torch.zeros_like(got[1]))


@pytest.mark.parametrize("heads", [1, 8])
def test_scratch_of_the_first_pass(heads: int) -> None:
    case = Case((600,), torch.float16, heads, 1)
    case.run()
    keys = expanded(case.logical[0][0], heads)
    scores = (keys @ case.query[0].double()[..., None])[..., 0] * case.scale
    for partition, some in enumerate(scores.split(256, -1)):
        largest = some.amax(-1)
        torch.testing.assert_close(
            case.maxima[0, :, partition].double(), largest, rtol=1e-5, atol=1e-5
        )
        sums = (some - largest[:, None]).exp().sum(-1)
        torch.testing.assert_close(case.sums[0, :, partition].double(), sums, rtol=1e-3, atol=0)


def test_no_sequences() -> None:
    case = Case((1,))
    case.run()
    more = {name: getattr(case, name) for name in ("query", "out", "table")}
    case.more = {
        "query": more["query"][:0],
        "out": more["out"][:0],
        "block_tables": more["table"][:0],
        "seq_lens": torch.zeros(0, dtype=torch.int32),
        "exp_sum": case.sums[:0],
        "max_logits": case.maxima[:0],
        "tmp_out": case.partial[:0],
    }
    case.run()


def test_mfma_types_are_equal() -> None:
    case = Case((40,), heads=8, kv_heads=1, code=torch.float8_e4m3fn)
    want = case.run().clone()
    case.more = {"mfma_type": "fp8"}
    assert torch.equal(case.run(), want)
