# SPDX-License-Identifier: Apache-2.0
"""Attention over a paged cache, against a plain softmax in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from attention_batches import Batch, Case, compare
from hypothesis import given
from hypothesis import strategies as st

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
    """Scores that are far apart: exponentials underflow, and the largest score comes late."""
    batch = Batch(ops, Case(((1, 400), (20, 300)), dtype=dtype))
    batch.query *= 60
    # A score of 250 has a rounding error of 1.5e-5, which is the relative error of its exponential.
    compare(batch.run(), batch.reference(), more=2e-4)


def test_sinks_of_bfloat16(ops: Any) -> None:
    batch = Batch(ops, Case(sinks=True))
    assert batch.sinks is not None
    batch.sinks = batch.sinks.bfloat16()
    compare(batch.run(), batch.reference())


def test_nan_is_not_hidden(ops: Any, dtype: torch.dtype) -> None:
    """NaN scores make the result NaN and affect no other head or token."""
    batch = Batch(ops, Case(((5, 40), (1, 20)), dtype=dtype))
    batch.query[3, 1] = math.nan
    output = batch.run()
    assert bool(output[3, 1].isnan().all())
    output[3, 1] = 0.0
    assert not output.isnan().any()


def test_strided(ops: Any, dtype: torch.dtype) -> None:
    """Queries are a view of a wider tensor; memory around the output stays unchanged."""
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
    """One schedule serves layers with and without a window, causal or not.

    Upstream shares it among them.
    """
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


def test_empty_inputs(ops: Any) -> None:
    batch = Batch(ops, Case(((0, 5), (0, 0))))
    assert batch.run().shape == (0, 4, 64)
