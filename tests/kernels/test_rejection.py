# SPDX-License-Identifier: Apache-2.0
"""Rejection sampling, compared with the rules of Leviathan et al. (2023), spelled out in Python."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("KERNEL_TEST_EXAMPLES", "50"))
#: Elements of an output that are not written.
EMPTY = -1
counts_of_drafts = st.lists(st.integers(0, 5), max_size=6)
integers = st.sampled_from([torch.int32, torch.int64])


def ends_of(counts: list[int]) -> list[int]:
    return [sum(counts[: i + 1]) for i in range(len(counts))]


def accept(counts: list[int], drafts: Any, wanted: Any, accepted: Any, bonus: Any) -> Any:
    """Rows of tokens: drafts that ``accepted`` allows, then ``wanted`` or the bonus."""
    room, at, rows = max(counts, default=0) + 1, 0, []
    for request, count in enumerate(counts):
        row = []
        for draft in range(at, at + count):
            row.append(drafts[draft] if accepted[draft] else wanted[draft])
            if not accepted[draft]:
                break
        else:
            row.append(bonus[request])
        at += count
        rows.append(row + [EMPTY] * (room - len(row)))
    return torch.tensor(rows, dtype=torch.int64).view(len(counts), room)


@given(counts=counts_of_drafts, kind=integers, some=st.booleans())
@settings(deadline=None, max_examples=EXAMPLES)
def test_greedy(ops: Any, *, counts: list[int], kind: torch.dtype, some: bool) -> None:
    total, requests = sum(counts), len(counts)
    drafts, target = torch.randint(-1, 3, (2, total))
    drafts = torch.where(torch.rand(total) < 0.5, target, drafts)
    bonus = torch.randint(0, 100, (requests, 1))
    greedy = torch.rand(requests) < 0.5 if some else None
    want = accept(counts, drafts.tolist(), target.tolist(), drafts == target, bonus[:, 0].tolist())
    if greedy is not None:
        want[~greedy] = EMPTY
    room = max(counts, default=0)
    out = torch.full((requests, room + 1), EMPTY, dtype=kind)
    ops.rejection_greedy_sample_kernel_impl(
        out, torch.tensor(ends_of(counts), dtype=kind), drafts.to(kind), target, bonus, greedy, room
    )
    assert torch.equal(out.long(), want)


@given(
    counts=counts_of_drafts,
    vocabulary=st.integers(1, 40),
    kind=integers,
    uniform=st.sampled_from([torch.float32, torch.float64]),
    given=st.booleans(),
    some=st.booleans(),
)
@settings(deadline=None, max_examples=EXAMPLES)
def test_random(
    ops: Any,
    *,
    counts: list[int],
    vocabulary: int,
    kind: torch.dtype,
    uniform: torch.dtype,
    given: bool,
    some: bool,
) -> None:
    """Padding, drafts that the draft model excludes, NaN; with and without the draft's numbers."""
    total, requests = sum(counts), len(counts)
    drafts = torch.randint(-1, vocabulary, (total,))
    target, draft = torch.randn(2, total, vocabulary).softmax(-1)
    draft[torch.rand(total, vocabulary) < 0.1] = 0
    target[torch.rand(total, vocabulary) < 0.1] = math.nan
    uniforms = torch.rand(total, dtype=uniform)
    each = torch.arange(total)
    p = target[each, drafts.clamp(min=0)]
    q = draft[each, drafts.clamp(min=0)] if given else torch.ones(total)
    accepted = (drafts >= 0) & (q > 0) & (p / q >= uniforms.float())
    recovered, bonus = torch.randint(0, vocabulary, (total,)), torch.randint(0, 99, (requests,))
    greedy = torch.rand(requests) < 0.3 if some else None
    want = accept(counts, drafts.tolist(), recovered.tolist(), accepted, bonus.tolist())
    if greedy is not None:
        want[greedy] = EMPTY
    room = max(counts, default=0)
    out = torch.full((requests, room + 1), EMPTY, dtype=kind)
    ops.rejection_random_sample_kernel_impl(
        out,
        torch.tensor(ends_of(counts), dtype=kind),
        drafts.to(kind),
        draft if given else None,
        target,
        bonus,
        recovered.to(kind),
        uniforms,
        greedy,
        room,
        vocabulary,
        not given,
    )
    assert torch.equal(out.long(), want)


def scores(
    counts: list[int], drafts: torch.Tensor, draft: Any, target: torch.Tensor, weights: Any
) -> torch.Tensor:
    """What a recovered token maximises, with -inf instead of NaN."""
    request = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts).long())
    if draft is None:
        more = target.clone()
        real = (drafts >= 0).nonzero()[:, 0]
        more[real, drafts[real]] = 0
    else:
        more = (target - draft).nan_to_num(nan=0.0).clamp(min=0)
    return (more * weights[request]).nan_to_num(nan=-math.inf, posinf=math.inf)


@given(
    counts=counts_of_drafts,
    vocabulary=st.integers(1, 150),
    kind=integers,
    given=st.booleans(),
    zeros=st.floats(0, 1),
    pad=st.integers(0, 3),
)
@settings(deadline=None, max_examples=EXAMPLES)
def test_recovered(
    ops: Any,
    *,
    counts: list[int],
    vocabulary: int,
    kind: torch.dtype,
    given: bool,
    zeros: float,
    pad: int,
) -> None:
    """Ties, rows of zeros, infinite weights and NaN; strided rows."""
    total, requests = sum(counts), len(counts)
    drafts = torch.randint(-1, vocabulary, (total,))
    target, draft = torch.randn(2, total, vocabulary + pad).softmax(-1)[..., :vocabulary]
    target[torch.rand(target.shape) < zeros] = 0
    draft[torch.rand(target.shape) < 0.05] = math.nan
    weights = torch.empty(requests, vocabulary).exponential_().reciprocal()
    weights[torch.rand(weights.shape) < 0.05] = math.inf
    want = scores(counts, drafts, draft if given else None, target, weights).argmax(-1)
    out = torch.full((total,), EMPTY, dtype=kind)
    ops.sample_recovered_tokens_kernel_impl(
        out,
        torch.tensor(ends_of(counts), dtype=kind),
        drafts.to(kind),
        draft if given else None,
        target,
        weights,
        vocabulary,
        not given,
    )
    assert torch.equal(out.long(), want)


@pytest.mark.parametrize("given", [True, False])
def test_recovered_from_a_large_vocabulary(ops: Any, given: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    """The vocabulary of a draft is divided among threads."""
    counts, vocabulary = [3, 0, 4], 70_001
    drafts = torch.randint(0, vocabulary, (7,))
    target, draft = torch.randn(2, 7, vocabulary).softmax(-1)
    weights = torch.empty(3, vocabulary).exponential_().reciprocal()
    want = scores(counts, drafts, draft if given else None, target, weights).argmax(-1)
    out = torch.empty(7, dtype=torch.int32)
    ends = torch.tensor(ends_of(counts))
    ops.sample_recovered_tokens_kernel_impl(
        out, ends, drafts, draft if given else None, target, weights, vocabulary, not given
    )
    assert torch.equal(out.long(), want)


def test_the_result_has_the_target_s_distribution(ops: Any) -> None:
    """Chi-square of the first token, 19 degrees of freedom: the 99.9 % quantile is 43.8."""
    vocabulary, draws = 20, 50_000
    p, q = torch.randn(2, vocabulary).softmax(-1)
    drafts = q.expand(draws, -1).multinomial(1)[:, 0]
    target, draft = (x.expand(draws, -1).contiguous() for x in (p, q))
    ends = torch.arange(1, draws + 1)
    recovered, out = torch.empty(draws, dtype=torch.int64), torch.full((draws, 2), EMPTY)
    weights = torch.empty(draws, vocabulary).exponential_().reciprocal()
    ops.sample_recovered_tokens_kernel_impl(
        recovered, ends, drafts, draft, target, weights, vocabulary, False
    )
    ops.rejection_random_sample_kernel_impl(
        out, ends, drafts, draft, target, torch.zeros(draws, dtype=torch.int64), recovered,
        torch.rand(draws, dtype=torch.float64), None, 1, vocabulary, False,
    )  # fmt: skip
    expected = p.double() * draws
    counts = torch.bincount(out[:, 0], minlength=vocabulary)
    assert ((counts - expected) ** 2 / expected).sum() < 43.8


@given(
    counts=st.lists(st.integers(0, 5), max_size=6),
    kind=st.sampled_from([torch.int32, torch.int64, torch.float32]),
    ends=integers,
)
@settings(deadline=None, max_examples=EXAMPLES)
def test_expand(ops: Any, *, counts: list[int], kind: torch.dtype, ends: torch.dtype) -> None:
    values = torch.randint(-2, 3, (len(counts),)).to(kind)
    out = torch.full((sum(counts) + 2,), 55).to(kind)
    ops.expand_kernel_impl(out, values, torch.tensor(ends_of(counts), dtype=ends), -1, 7)
    want = (
        torch.where(values == -1, 7, values).to(kind).repeat_interleave(torch.tensor(counts).long())
    )
    assert torch.equal(out[:-2], want)
    assert (out[-2:] == 55).all()
