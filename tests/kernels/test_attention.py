# SPDX-License-Identifier: Apache-2.0
"""Attention over a paged cache, against a plain softmax in float64."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[[torch.Tensor, torch.Tensor], None]

#: Examples of each property; fewer where test_instruction_sets.py repeats these tests.
EXAMPLES = int(os.environ.get("KERNEL_TEST_EXAMPLES", "50"))


@dataclass
class Case:
    """One call. ``lengths`` are (new tokens, all tokens) of each request."""

    lengths: tuple[tuple[int, int], ...] = ((1, 1), (5, 40), (1, 133), (7, 7), (2, 300))
    heads: tuple[int, int] = (4, 2)
    head_size: int = 64
    block_size: int = 16
    causal: bool = True
    dynamic_causal: tuple[int, ...] | None = None
    window: int = -1
    softcap: float = 0.0
    alibi: bool = False
    sinks: bool = False
    split: bool = True
    dtype: torch.dtype = torch.float32
    isa: str = "vec"

    @property
    def scale(self) -> float:
        return self.head_size**-0.5


class Batch:
    """Random queries, keys and values of a case, the cache filled through the op."""

    def __init__(self, ops: Any, case: Case) -> None:
        self.ops, self.case = ops, case
        q_heads, kv_heads = case.heads
        self.new, self.lens = [q for q, _ in case.lengths], [kv for _, kv in case.lengths]
        self.query = torch.randn(sum(self.new), q_heads, case.head_size).to(case.dtype)
        self.keys = [torch.randn(kv, kv_heads, case.head_size).to(case.dtype) for kv in self.lens]
        self.values = [torch.randn(kv, kv_heads, case.head_size).to(case.dtype) for kv in self.lens]
        self.query_start_loc = torch.tensor([0, *self.new], dtype=torch.int32).cumsum(
            0, dtype=torch.int32
        )
        self.seq_lens = torch.tensor(self.lens, dtype=torch.int32)
        needed = [-(-kv // case.block_size) for kv in self.lens]
        self.blocks = sum(needed) + 2
        order = torch.randperm(self.blocks, dtype=torch.int32)
        # Entries that no token needs hold a number that is no block.
        self.table = torch.full((len(needed), max(needed, default=0) + 1), -7, dtype=torch.int32)
        slots = []
        for row, count in enumerate(needed):
            self.table[row, :count], order = order[:count], order[count:]
            positions = torch.arange(self.lens[row])
            slots.append(
                self.table[row, positions // case.block_size].long() * case.block_size
                + positions % case.block_size
            )
        self.slots = torch.cat(slots)
        self.slopes = torch.rand(q_heads) if case.alibi else None
        self.sinks = torch.randn(q_heads) * 2 if case.sinks else None
        self.dynamic_causal = (
            None
            if case.dynamic_causal is None
            else torch.tensor(case.dynamic_causal, dtype=torch.int32)
        )
        # Memory that no token was written to is not a number.
        memory = torch.full(
            (self.blocks, kv_heads, 2 * case.block_size, case.head_size), math.nan, dtype=case.dtype
        )
        self.key_cache, self.value_cache = memory.chunk(2, dim=2)
        ops.cpu_attn_reshape_and_cache(
            torch.cat(self.keys),
            torch.cat(self.values),
            self.key_cache,
            self.value_cache,
            self.slots,
            case.isa,
        )

    def metadata(self) -> torch.Tensor:
        case = self.case
        made: torch.Tensor = self.ops.get_scheduler_metadata(
            len(self.new), *case.heads, case.head_size, self.seq_lens, case.dtype, self.query_start_loc, case.causal, case.window, case.isa,
            case.split, self.dynamic_causal,
        )  # fmt: skip
        return made

    def arguments(self) -> dict[str, Any]:
        case = self.case
        return {
            "query": self.query,
            "key_cache": self.key_cache,
            "value_cache": self.value_cache,
            "output": torch.full_like(self.query, math.nan),
            "query_start_loc": self.query_start_loc,
            "seq_lens": self.seq_lens,
            "scale": case.scale,
            "causal": case.causal,
            "alibi_slopes": self.slopes,
            "sliding_window_size": case.window,
            "block_table": self.table,
            "softcap": case.softcap,
            "scheduler_metadata": self.metadata(),
            "s_aux": self.sinks,
            "dynamic_causal": self.dynamic_causal,
        }

    def run(self, **changed: Any) -> torch.Tensor:
        arguments = self.arguments() | changed
        self.ops.cpu_attention_with_kv_cache(**arguments)
        output: torch.Tensor = arguments["output"]
        return output

    def reference(self) -> torch.Tensor:
        case = self.case
        group = case.heads[0] // case.heads[1]
        causal = case.dynamic_causal or [int(case.causal)] * len(self.new)
        results = []
        for i, q in enumerate(self.query.double().split(self.new)):
            k, v = (
                t.double().repeat_interleave(group, dim=1) for t in (self.keys[i], self.values[i])
            )
            scores = torch.einsum("qhd,khd->hqk", q, k) * case.scale
            if case.softcap:
                scores = case.softcap * torch.tanh(scores / case.softcap)
            position = torch.arange(self.new[i])[:, None] + self.lens[i] - self.new[i]
            distance = torch.arange(self.lens[i])[None] - position
            if self.slopes is not None:
                scores = scores + self.slopes.double()[:, None, None] * distance
            hidden = torch.zeros_like(distance, dtype=torch.bool)
            if causal[i]:
                hidden |= distance > 0
            if case.window > 0:
                hidden |= distance.abs() >= case.window
            scores = scores.masked_fill(hidden, -math.inf)
            if self.sinks is not None:
                sink = self.sinks.double()[:, None, None].expand(-1, self.new[i], 1)
                scores = torch.cat((scores, sink), dim=-1)
            # A token that sees nothing gets zeros.
            weights = scores.softmax(-1).nan_to_num(0.0)[..., : self.lens[i]]
            results.append(torch.einsum("hqk,khd->qhd", weights, v))
        return torch.cat(results)


#: Relative error of the output's rounding, and absolute error of sums of weighted values of size
#: one.
TOLERANCE = {
    torch.float32: (1e-5, 3e-6),
    torch.bfloat16: (2**-8, 1e-5),
    torch.float16: (2**-10, 1e-5),
}


def compare(got: torch.Tensor, want: torch.Tensor, more: float = 0.0) -> None:
    """``more``: absolute error beyond the usual."""
    relative, absolute = TOLERANCE[got.dtype]
    torch.testing.assert_close(got.double(), want, rtol=relative, atol=absolute + more)


MIXED = ((1, 213), (33, 213), (1, 1), (130, 200), (0, 9), (1, 16), (1, 17), (3, 3))
CASES = {
    "decode": Case(((1, 213), (1, 1), (1, 312), (1, 7), (1, 1500))),
    "prefill": Case(((200, 200), (5, 5), (3, 16), (70, 300))),
    "mixed": Case(MIXED),
    "one head each": Case(MIXED, heads=(3, 3)),
    "one key head": Case(MIXED, heads=(7, 1)),
    "many query heads": Case(MIXED, heads=(40, 2)),
    "one long request": Case(((1, 2000),), heads=(2, 1)),
    "not causal": Case(MIXED, causal=False),
    "more new tokens than keys": Case(((9, 4), (30, 17)), causal=False),
    "more new tokens than keys, causal": Case(((9, 4), (40, 17))),
    "window": Case(MIXED, window=20),
    "window of one": Case(MIXED, window=1),
    "window, not causal": Case(MIXED, window=20, causal=False),
    "wide window": Case(MIXED, window=5000),
    "dynamic": Case(((4, 20), (1, 9), (20, 40)), dynamic_causal=(0, 1, 0)),
    "dynamic window": Case(
        ((4, 20), (1, 9), (20, 40)), dynamic_causal=(1, 0, 0), causal=False, window=6
    ),
    "softcap": Case(MIXED, softcap=5.0),
    "alibi": Case(MIXED, alibi=True),
    "sinks": Case(MIXED, sinks=True),
    "sinks, long": Case(((1, 1500),), heads=(2, 1), sinks=True),
    "sinks without keys": Case(((3, 0), (2, 1)), sinks=True, causal=False),
    "everything": Case(
        MIXED,
        heads=(6, 2),
        softcap=3.0,
        alibi=True,
        sinks=True,
        window=50,
        head_size=80,
        block_size=32,
    ),
    "no split": Case(MIXED, split=False),
    "large blocks": Case(MIXED, block_size=128),
    "odd blocks": Case(MIXED, block_size=48),
}


@pytest.mark.parametrize("name", CASES)
def test_attention(ops: Any, dtype: torch.dtype, name: str) -> None:
    case = Case(**{**CASES[name].__dict__, "dtype": dtype})
    batch = Batch(ops, case)
    compare(batch.run(), batch.reference())


@pytest.mark.parametrize("head_size", [1, 8, 32, 40, 80, 96, 112, 128, 160, 192, 256, 300])
@pytest.mark.parametrize("block_size", [16, 32])
def test_head_sizes(ops: Any, dtype: torch.dtype, head_size: int, block_size: int) -> None:
    batch = Batch(
        ops, Case(((1, 70), (30, 30)), head_size=head_size, block_size=block_size, dtype=dtype)
    )
    compare(batch.run(), batch.reference())


@given(
    lengths=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 200)), min_size=1, max_size=4),
    heads=st.tuples(st.integers(1, 8), st.integers(1, 3)),
    head_size=st.integers(1, 70),
    block_size=st.sampled_from([16, 32, 48]),
    window=st.integers(-1, 60),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
)
@settings(deadline=None, max_examples=EXAMPLES)
def test_any_shape(
    ops: Any,
    *,
    lengths: list[tuple[int, int]],
    heads: tuple[int, int],
    head_size: int,
    block_size: int,
    window: int,
    flags: tuple[bool, bool, bool, bool],
) -> None:
    causal, alibi, sinks, capped = flags
    lengths = [(min(q, kv) if causal else q, kv) for q, kv in lengths]
    case = Case(
        tuple(lengths),
        (heads[0] * heads[1], heads[1]),
        head_size,
        block_size,
        causal,
        None,
        window,
        4.0 if capped else 0.0,
        alibi,
        sinks,
    )
    batch = Batch(ops, case)
    compare(batch.run(), batch.reference())


@pytest.mark.parametrize("isa", ["amx", "amx_fp8", "vec", "vec16", "neon", "vxe", "rvv", "vsx"])
def test_every_isa_is_served(ops: Any, isa: str) -> None:
    batch = Batch(ops, Case(isa=isa))
    compare(batch.run(), batch.reference())


def test_isa_of_this_cpu(ops: Any) -> None:
    assert ops.cpu_attn_has_isa("vec")
    assert ops.cpu_attn_has_isa("vec16")
    assert ops.cpu_attn_has_isa("amx") == torch.cpu._is_amx_tile_supported()
    assert not ops.cpu_attn_has_isa("nonesuch")


def test_large_scores(ops: Any, dtype: torch.dtype) -> None:
    """Scores far apart: exponentials that underflow, and a largest score that comes late."""
    batch = Batch(ops, Case(((1, 400), (20, 300)), dtype=dtype))
    batch.query *= 60
    # A score of 250 has a rounding error of 1.5e-5, which is the relative error of its exponential.
    compare(batch.run(), batch.reference(), more=2e-4)


def test_sinks_of_bfloat16(ops: Any) -> None:
    batch = Batch(ops, Case(sinks=True))
    assert batch.sinks is not None
    batch.sinks = batch.sinks.bfloat16()
    compare(batch.run(), batch.reference())


def test_not_a_number_is_not_hidden(ops: Any, dtype: torch.dtype) -> None:
    """Scores that are no numbers make the result none, and touch no other head or token."""
    batch = Batch(ops, Case(((5, 40), (1, 20)), dtype=dtype))
    batch.query[3, 1] = math.nan
    output = batch.run()
    assert bool(output[3, 1].isnan().all())
    output[3, 1] = 0.0
    assert not output.isnan().any()


def test_strided(ops: Any, dtype: torch.dtype) -> None:
    """Queries inside a wider tensor, output with memory around it, which stays as it is."""
    batch = Batch(ops, Case(dtype=dtype))
    tokens, heads, size = batch.query.shape
    wide = torch.randn(tokens, heads + 3, size + 5).to(dtype)
    wide[:, 2 : 2 + heads, 3 : 3 + size] = batch.query
    around = torch.full((tokens + 2, heads + 1, size + 2), 7.0, dtype=dtype)
    view = around[:tokens, :heads, 1 : 1 + size]
    batch.run(query=wide[:, 2 : 2 + heads, 3 : 3 + size], output=view)
    compare(view, batch.reference())
    view.fill_(7.0)
    assert bool((around == 7.0).all())


def test_tokens_behind_the_last_request_stay(ops: Any) -> None:
    batch = Batch(ops, Case())
    want = batch.reference()
    query = torch.cat((batch.query, torch.full((3, *batch.query.shape[1:]), math.nan)))
    output = torch.full_like(query, 5.0)
    batch.run(query=query, output=output)
    compare(output[:-3], want)
    assert bool((output[-3:] == 5.0).all())


def test_metadata_of_another_window_serves(ops: Any) -> None:
    """One schedule serves layers with and without a window, causal or not: upstream shares it among them."""
    batch = Batch(ops, Case(MIXED, window=30))
    unlimited = Batch.metadata(batch)
    batch.case.window = -1
    compare(batch.run(scheduler_metadata=unlimited), batch.reference())


def test_threads_change_little(ops: Any) -> None:
    batch = Batch(ops, Case(((1, 3000), (1, 50)), heads=(2, 1)))
    many = batch.run()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one = batch.run()
        foreign = batch.metadata()
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(one, many, rtol=1e-5, atol=1e-6)
    assert torch.equal(batch.run(scheduler_metadata=foreign), one)


def test_nothing_to_do(ops: Any) -> None:
    batch = Batch(ops, Case(((0, 5), (0, 0))))
    assert batch.run().shape == (0, 4, 64)


BAD = {
    "foreign metadata": (
        lambda _: {"scheduler_metadata": torch.zeros(28, dtype=torch.int32)},
        "scheduler_metadata has no schedule",
    ),
    "short metadata": (
        lambda b: {"scheduler_metadata": b.metadata()[:12]},
        "scheduler_metadata has no schedule",
    ),
    "metadata of floats": (
        lambda b: {"scheduler_metadata": b.metadata().float()},
        "scheduler_metadata is of dtype Float, expected Int",
    ),
    "stale metadata": (
        lambda b: {"seq_lens": b.seq_lens - torch.tensor([0, 1, 0, 0, 0], dtype=torch.int32)},
        "scheduler_metadata was made for request 1 with 5 new tokens of 40, expected 5 of 39",
    ),
    "metadata of other heads": (
        lambda b: {"query": b.query[:, :2], "output": torch.empty(b.query.shape[0], 2, 64)},
        (
            "scheduler_metadata was made for 4 query heads, 2 key heads and head size 64, expected "
            "2, "
            "2 and 64"
        ),
    ),
    "block that is none": (
        lambda b: {"block_table": b.table * 0 + b.blocks},
        r"block_table holds \d+ for block 0 of request 0, expected 0 <=",
    ),
    "negative block": (
        lambda b: {"block_table": b.table * 0 - 1},
        "block_table holds -1 for block 0 of request 0",
    ),
    "short table": (
        lambda b: {"block_table": b.table[:, :3]},
        r"block_table has shape \[5, 3\], expected at least 9 blocks a row: request 2",
    ),
    "table of few rows": (
        lambda b: {"block_table": b.table[:2]},
        r"block_table has shape \[2, \d+\], expected \[num_reqs, max_blocks\]",
    ),
    "table of int64": (
        lambda b: {"block_table": b.table.long()},
        "block_table is of dtype Long, expected Int",
    ),
    "output too small": (
        lambda _: {"output": torch.empty(3, 4, 64)},
        r"output has shape \[3, 4, 64\], expected \[16, 4, 64\]",
    ),
    "output of other dtype": (
        lambda _: {"output": torch.empty(16, 4, 64).half()},
        "output is of dtype Half, expected Float",
    ),
    "query too short": (
        lambda b: {"query": b.query[:9], "output": torch.empty(9, 4, 64)},
        "query_start_loc ends at 16, expected at most 9, the tokens of query",
    ),
    "falling starts": (
        lambda b: {"query_start_loc": b.query_start_loc.flip(0)},
        "query_start_loc goes from 16 to",
    ),
    "negative length": (lambda b: {"seq_lens": -b.seq_lens}, "seq_lens holds -1 for request 0"),
    "cache of other dtype": (
        lambda b: {"key_cache": b.key_cache.half()},
        "key_cache is of dtype Half, expected Float, the dtype of query",
    ),
    "cache of other heads": (
        lambda _: {
            "key_cache": torch.empty(9, 3, 16, 64),
            "value_cache": torch.empty(9, 3, 16, 64),
        },
        "query has 4 heads, expected a multiple of the 3 heads of key_cache",
    ),
    "caches differ": (
        lambda b: {"value_cache": b.value_cache[1:]},
        "value_cache has shape .*: the shape of key_cache",
    ),
    "blocks of 8": (
        lambda b: {"key_cache": b.key_cache[:, :, :8]},
        "expected a block size \\(third dimension\\) that is a multiple of 16",
    ),
    "pages apart": (
        lambda _: {"key_cache": torch.empty(9, 2, 16, 70)[..., :64]},
        "key_cache has strides .* contiguous last two dimensions",
    ),
    "slopes": (
        lambda _: {"alibi_slopes": torch.zeros(3)},
        r"alibi_slopes has shape \[3\], expected \[4\]",
    ),
    "sinks": (lambda _: {"s_aux": torch.zeros(4, 1)}, r"s_aux has shape \[4, 1\], expected \[4\]"),
    "dynamic": (
        lambda _: {"dynamic_causal": torch.zeros(4, dtype=torch.int32)},
        r"dynamic_causal has shape \[4\], expected .* at least 5",
    ),
    "softcap": (lambda _: {"softcap": -1.0}, "softcap is -1.0+, expected 0"),
    "cache dtype": (
        lambda _: {"kv_cache_dtype": "int8"},
        "kv_cache_dtype is 'int8', expected auto, fp8",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(ops: Any, name: str) -> None:
    batch = Batch(ops, Case())
    make, message = BAD[name]
    arguments = batch.arguments() | make(batch)
    before = arguments["output"].clone()
    with pytest.raises(RuntimeError, match=f"^cpu_attention_with_kv_cache: .*{message}"):
        ops.cpu_attention_with_kv_cache(**arguments)
    assert torch.equal(arguments["output"].isnan(), before.isnan())


BAD_SCHEDULE = {
    "heads": ({"num_heads_q": 5}, "num_heads_q is 5 and num_heads_kv 2"),
    "no heads": ({"num_heads_kv": 0}, "num_heads_q is 4 and num_heads_kv 0"),
    "requests": ({"num_req": -1}, "num_req is -1"),
    "too many requests": ({"num_req": 9}, "query_start_loc has shape"),
    "size": ({"head_dim": 0}, "head_dim is 0"),
    "isa": ({"isa_hint": "sse"}, "isa_hint is 'sse', expected amx"),
    "dtype": ({"dtype": torch.int32}, "dtype is Int, expected Float, BFloat16 or Half"),
    "cache dtype": ({"kv_cache_dtype": "fp7"}, "kv_cache_dtype is 'fp7'"),
    "lengths": ({"seq_lens": torch.zeros(5)}, "seq_lens is of dtype Float, expected Int"),
}


@pytest.mark.parametrize("name", BAD_SCHEDULE)
def test_bad_schedules(ops: Any, name: str) -> None:
    changed, message = BAD_SCHEDULE[name]
    batch = Batch(ops, Case())
    arguments = {
        "num_req": 5, "num_heads_q": 4, "num_heads_kv": 2, "head_dim": 64, "seq_lens": batch.seq_lens, "dtype": torch.float32,
        "query_start_loc": batch.query_start_loc, "casual": True, "window_size": -1, "isa_hint": "vec", "enable_kv_split": True,
        "dynamic_causal": None,
    }  # fmt: skip
    with pytest.raises(RuntimeError, match=f"^get_scheduler_metadata: .*{message}"):
        ops.get_scheduler_metadata(**(arguments | changed))
