# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

VOCABULARIES = [1, 7, 63, 64, 65, 130, 1000, 8192, 8193, 20_003]


def philox(
    seed: torch.Tensor, counter: torch.Tensor, stage: int, rounds: int = 7
) -> tuple[torch.Tensor, ...]:
    """Philox4x32 as defined by Salmon et al. (2011), in int64 tensors of 32-bit numbers."""
    low = 0xFFFFFFFF

    def multiply(a: int, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # In two parts, because 64-bit products overflow: a * b = a * bh * 2^16 + a * bl.
        upper, lower = a * (b >> 16), a * (b & 0xFFFF)
        total = (upper << 16) & low
        carry = (total + (lower & low)) >> 32
        return ((upper >> 16) + (lower >> 32) + carry) & low, (total + lower) & low

    x0, x1, x2, x3 = (
        counter & low,
        (counter >> 32) & low,
        torch.full_like(counter, stage),
        torch.zeros_like(counter),
    )
    k0, k1 = seed & low, (seed >> 32) & low
    for _ in range(rounds):
        (h0, l0), (h1, l1) = multiply(0xD2511F53, x0), multiply(0xCD9E8D57, x2)
        x0, x1, x2, x3 = h1 ^ x1 ^ k0, l1, h0 ^ x3 ^ k1, l0
        k0, k1 = (k0 + 0x9E3779B9) & low, (k1 + 0xBB67AE85) & low
    return x0, x1, x2, x3


def noise(seeds: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """The noise that csrc/sampling/sampling.h defines, for all elements, in float64."""
    i, seed = torch.arange(vocabulary), seeds[:, None]
    words = torch.stack(philox(seed.expand(-1, vocabulary), (i // 8).expand(len(seeds), -1), 0))
    high = words.gather(0, (i % 8 // 2).expand(1, len(seeds), -1))[0] >> (i % 2 * 16) & 0xFFFF
    low = torch.stack(
        philox(seed.expand(-1, vocabulary), (i // 4).expand(len(seeds), -1), 1)
    ).gather(0, (i % 4).expand(1, len(seeds), -1))[0]
    c = (((high << 32) + low).double() + 0.5) * 2.0**-48
    return -(-torch.log1p(-c)).log()


def seeds_for(rows: int) -> torch.Tensor:
    return torch.randint(-(2**63), 2**63 - 1, (rows,))


def test_the_reference_is_philox() -> None:
    """Its authors' vector for ten rounds.

    Source: https://github.com/DEShawResearch/random123, tests/kat_vectors.
    """
    zero = torch.zeros((), dtype=torch.int64)
    assert [int(x) for x in philox(zero, zero, 0, 10)] == [
        0x6627E8D5,
        0xE169C58D,
        0xBC57AC4C,
        0x9B00DBD8,
    ]


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_greedy(ops: Any, dtype: torch.dtype, rows: int, vocabulary: int) -> None:
    logits = torch.randn(rows, vocabulary).to(dtype)
    assert torch.equal(ops.greedy_argmax(logits), logits.argmax(-1))


@given(
    rows=st.integers(1, 4),
    width=st.integers(1, 300),
    pad=st.integers(0, 5),
    kinds=st.integers(1, 4),
    data=st.data(),
)
def test_greedy_has_argmaxs_order(
    ops: Any, dtype: torch.dtype, *, rows: int, width: int, pad: int, kinds: int, data: Any
) -> None:
    """Ties, infinities and NaN in all positions; strided rows."""
    special = [0.0, -0.0, -math.inf, math.inf, math.nan, 1.0, 3e38]
    values = torch.tensor(
        data.draw(st.lists(st.sampled_from(special), min_size=kinds, max_size=kinds))
    )
    logits = values[torch.randint(0, kinds, (rows, width + pad))].to(dtype)[:, :width]
    assert torch.equal(ops.greedy_argmax(logits), logits.argmax(-1))


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("spread", [0.0, 1.0, 10.0])
def test_gumbel(ops: Any, dtype: torch.dtype, vocabulary: int, spread: float) -> None:
    """The kernel's shortcuts choose the same tokens as the complete noise."""
    rows = 3
    logits, seeds = (torch.randn(rows, vocabulary) * spread).to(dtype), seeds_for(rows)
    want = (logits.double() + noise(seeds, vocabulary)).argmax(-1)
    assert torch.equal(ops.fused_gumbel_argmax(logits, seeds), want)


@given(
    rows=st.integers(1, 4),
    width=st.integers(1, 300),
    pad=st.integers(0, 5),
    masked=st.floats(0, 1),
    step=st.integers(1, 3),
)
def test_gumbel_of_masked_logits(
    ops: Any, dtype: torch.dtype, *, rows: int, width: int, pad: int, masked: float, step: int
) -> None:
    logits, seeds = (
        torch.randn(rows, width + pad).to(dtype)[:, :width],
        seeds_for(rows * step)[::step],
    )
    logits[torch.rand(rows, width) < masked] = -math.inf
    want = (logits.double() + noise(seeds, width)).argmax(-1)
    assert torch.equal(ops.fused_gumbel_argmax(logits, seeds), want)


def test_gumbel_of_logits_that_rise(ops: Any) -> None:
    """Every block has a better token than the one before."""
    logits, seeds = torch.arange(20_000).float().expand(3, -1).contiguous() * 0.1, seeds_for(3)
    assert torch.equal(
        ops.fused_gumbel_argmax(logits, seeds), (logits.double() + noise(seeds, 20_000)).argmax(-1)
    )


def test_gumbel_of_huge_logits_still_draws(ops: Any) -> None:
    """Next to 3e38, the noise is lost in the sum, but it still decides."""
    logits, seeds = torch.full((4000, 4), 3e38), torch.arange(4000)
    counts = torch.bincount(ops.fused_gumbel_argmax(logits, seeds), minlength=4)
    assert torch.equal(ops.fused_gumbel_argmax(logits, seeds), noise(seeds, 4).argmax(-1))
    assert (counts > 850).all()


def test_gumbel_of_infinities_and_nan(ops: Any) -> None:
    seeds = torch.arange(200)
    nothing = torch.full((200, 70), -math.inf)
    assert not ops.fused_gumbel_argmax(nothing, seeds).any()
    two = torch.randn(200, 70)
    two[:, [3, 69]] = math.inf
    assert set(ops.fused_gumbel_argmax(two, seeds).tolist()) == {3, 69}
    two[:, [5, 68]] = math.nan
    assert (ops.fused_gumbel_argmax(two, seeds) == 5).all()


def test_gumbel_draws_from_softmax(ops: Any) -> None:
    """Pearson's chi-square over consecutive seeds, 99 degrees of freedom.

    The 99.9 % quantile is 148.2.
    """
    vocabulary, draws = 100, 100_000
    logits = torch.randn(vocabulary) * 1.5
    tokens = ops.fused_gumbel_argmax(logits.expand(draws, -1), torch.arange(draws))
    expected = logits.double().softmax(-1) * draws
    counts = torch.bincount(tokens, minlength=vocabulary)
    assert ((counts - expected) ** 2 / expected).sum() < 148.2


def test_gumbel_reaches_a_large_vocabulary_evenly(ops: Any) -> None:
    """Equal logits: the vocabulary in 64 parts, 63 degrees of freedom, 99.9 % quantile 103.4.

    Results of neighbouring seeds are unrelated.
    """
    vocabulary, draws = 16_384, 8192
    tokens = ops.fused_gumbel_argmax(
        torch.zeros(1, vocabulary).expand(draws, -1), torch.arange(draws)
    )
    counts = torch.bincount(tokens // (vocabulary // 64), minlength=64)
    assert ((counts - draws / 64) ** 2 / (draws / 64)).sum() < 103.4
    by_place = torch.bincount(tokens % 8, minlength=8)
    assert ((by_place - draws / 8) ** 2 / (draws / 8)).sum() < 24.3, "7 degrees of freedom"
    assert ((tokens[1:] - tokens[:-1]).abs() <= 8).sum() < 40, "8 are expected"


def test_a_row_depends_on_nothing_else(ops: Any, dtype: torch.dtype) -> None:
    logits, seeds = torch.randn(9, 40_000).to(dtype), seeds_for(9)
    many = ops.fused_gumbel_argmax(logits, seeds)
    assert torch.equal(
        torch.cat([ops.fused_gumbel_argmax(logits[i : i + 1], seeds[i : i + 1]) for i in range(9)]),
        many,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert torch.equal(ops.fused_gumbel_argmax(logits, seeds), many)
        assert torch.equal(ops.greedy_argmax(logits), logits.argmax(-1))
    finally:
        torch.set_num_threads(threads)


def test_elements_of_a_row_need_not_be_adjacent(ops: Any, dtype: torch.dtype) -> None:
    logits, seeds = torch.randn(4, 3000).to(dtype), seeds_for(4)
    wanted = ops.greedy_argmax(logits), ops.fused_gumbel_argmax(logits, seeds)
    for strided in (
        logits.t().contiguous().t(),
        torch.stack([logits, torch.full_like(logits, 99)], -1)[..., 0],
        logits[:1].expand(4, -1),
    ):
        assert torch.equal(ops.greedy_argmax(strided), strided.argmax(-1))
        if strided.stride(0):
            assert torch.equal(ops.greedy_argmax(strided), wanted[0])
            assert torch.equal(ops.fused_gumbel_argmax(strided, seeds), wanted[1])


LOGITS, SEEDS = torch.zeros(3, 5), torch.arange(3)
BAD = {
    "double": (LOGITS.double(), SEEDS, "logits is of dtype Double"),
    "flat": (LOGITS[0], SEEDS, r"logits has shape \[5\], expected \[rows, vocabulary\]"),
    "no token": (LOGITS[:, :0], SEEDS, r"logits has shape \[3, 0\]"),
    "int seeds": (LOGITS, SEEDS.int(), "seeds is of dtype Int, expected Long"),
    "two seeds": (
        LOGITS,
        SEEDS[:2],
        r"seeds has shape \[2\], expected \[3\]: the number of rows of logits",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(ops: Any, case: str) -> None:
    logits, seeds, message = BAD[case]
    with pytest.raises(RuntimeError, match=f"^fused_gumbel_argmax: {message}"):
        ops.fused_gumbel_argmax(logits, seeds)
    if "seeds" not in case:
        with pytest.raises(RuntimeError, match=f"^greedy_argmax: {message}"):
            ops.greedy_argmax(logits)
