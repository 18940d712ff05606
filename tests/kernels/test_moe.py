# SPDX-License-Identifier: Apache-2.0
"""Routing of tokens to experts, the experts' order, and their sum."""

from __future__ import annotations

import math
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[[torch.Tensor, torch.Tensor], None]
    Strided = Callable[..., torch.Tensor]

#: Examples of each property; fewer where test_instruction_sets.py repeats these tests.
EXAMPLES = int(os.environ.get("KERNEL_TEST_EXAMPLES", "50"))
#: Tokens, experts, choices: one of each; no vector divides; all experts; nothing at all; enough for
#: two threads.
SHAPES = [
    (1, 1, 1),
    (3, 5, 2),
    (7, 8, 2),
    (5, 60, 4),
    (2, 257, 8),
    (4, 9, 9),
    (0, 8, 2),
    (3, 8, 0),
    (300, 128, 8),
]

#: A case that says something about what a tensor holds.
CONTENTS = partial(pytest.param, marks=pytest.mark.contents)


@pytest.fixture(scope="session")
def moe(ops: Any) -> Any:
    assert ops is not None
    return torch.ops._moe_C


def logits_of(tokens: int, experts: int, dtype: torch.dtype) -> torch.Tensor:
    """Values that differ by more than the dtype's rounding, so that the choice is unambiguous."""
    order = torch.rand(tokens, experts).argsort(-1)
    return ((order - experts / 2) / 16).to(dtype)


def outputs(tokens: int, topk: int, index: torch.dtype = torch.int32) -> tuple[torch.Tensor, ...]:
    weights = torch.full((tokens, topk), math.nan)
    return (
        weights,
        torch.full((tokens, topk), 77).to(index),
        torch.full((tokens, topk), 77, dtype=torch.int32),
    )


def routed(
    scores: torch.Tensor, bias: torch.Tensor | None, topk: int, scale: float, *, renormalize: bool
) -> tuple[torch.Tensor, ...]:
    choice = scores if bias is None else scores + bias.double()
    experts = choice.sort(dim=-1, descending=True, stable=True).indices[:, :topk]
    weights = scores.gather(1, experts)
    if renormalize:
        weights = weights / weights.sum(-1, keepdim=True)
    return weights * scale, experts


def call(
    moe: Any, name: str, out: tuple[torch.Tensor, ...], x: torch.Tensor, **kwargs: Any
) -> None:
    full = {"renormalize": False, "bias": None, "is_padding": None} | kwargs
    if name == "topk_sigmoid":
        full = {"routed_scaling_factor": 1.0} | full
    getattr(moe, name)(*out, x, **full)


SCORES = {"topk_softmax": lambda x: x.softmax(-1), "topk_sigmoid": torch.sigmoid}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("index", [torch.int32, torch.int64, torch.uint32], ids=str)
def test_topk(
    moe: Any,
    check: Check,
    *,
    dtype: torch.dtype,
    name: str,
    shape: tuple[int, int, int],
    renormalize: bool,
    index: Any,
) -> None:
    tokens, experts, topk = shape
    x = logits_of(tokens, experts, dtype)
    out = outputs(tokens, topk, index)
    call(moe, name, out, x, renormalize=renormalize)
    weights, chosen = routed(SCORES[name](x.double()), None, topk, 1.0, renormalize=renormalize)
    assert torch.equal(out[1].to(torch.int64), chosen)
    check(out[0], weights)
    assert torch.equal(
        out[2].long(), torch.arange(tokens).view(-1, 1) + tokens * torch.arange(topk)
    )


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("bias_dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_bias_chooses_but_does_not_weigh(
    moe: Any, check: Check, name: str, bias_dtype: torch.dtype
) -> None:
    x = torch.randn(9, 37)
    bias = torch.linspace(-4, 4, 37)[torch.randperm(37)].to(bias_dtype)
    out = outputs(9, 6)
    scale = 2.5 if name == "topk_sigmoid" else 1.0
    more = {"routed_scaling_factor": scale} if name == "topk_sigmoid" else {}
    call(moe, name, out, x, bias=bias, renormalize=True, **more)
    weights, chosen = routed(SCORES[name](x.double()), bias, 6, scale, renormalize=True)
    assert torch.equal(out[1].long(), chosen)
    check(out[0], weights)


@pytest.mark.parametrize("name", SCORES)
def test_padding(moe: Any, check: Check, name: str) -> None:
    x = logits_of(6, 8, torch.float32)
    padding = torch.tensor([False, True, False, False, True, True])
    out = outputs(6, 3)
    call(moe, name, out, x, is_padding=padding)
    weights, chosen = routed(SCORES[name](x.double()), None, 3, 1.0, renormalize=False)
    assert torch.equal(out[1].long(), chosen.masked_fill(padding.view(-1, 1), -1))
    check(out[0], weights.masked_fill(padding.view(-1, 1), 0))


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0])
def test_experts_differ_whatever_the_logits(moe: Any, name: str, value: float) -> None:
    out = outputs(2, 5)
    x = torch.full((2, 19), value)
    x[1, 4] = 1.0
    call(moe, name, out, x, renormalize=True)
    assert out[1][0].tolist() == [0, 1, 2, 3, 4]
    assert sorted(set(out[1][1].tolist())) == sorted(out[1][1].tolist())
    assert out[0].isfinite().all()


@pytest.mark.parametrize("name", SCORES)
def test_equals_go_to_the_lower_number(moe: Any, name: str) -> None:
    out = outputs(1, 4)
    x = torch.zeros(1, 40)
    x[0, [33, 7, 20]] = 1.0
    call(moe, name, out, x)
    assert out[1].tolist() == [[7, 20, 33, 0]]


@given(tokens=st.integers(0, 40), experts=st.integers(1, 70), data=st.data())
@settings(deadline=None, max_examples=EXAMPLES)
def test_topk_shapes_and_strides(
    moe: Any,
    check: Check,
    strided: Strided,
    dtype: torch.dtype,
    *,
    tokens: int,
    experts: int,
    data: Any,
) -> None:
    topk = data.draw(st.integers(1, experts))
    x = strided((tokens, experts), dtype, pad=data.draw(st.integers(0, 9)))
    x.copy_(logits_of(tokens, experts, dtype))
    out = outputs(tokens, topk)
    call(moe, "topk_softmax", out, x)
    weights, chosen = routed(x.double().softmax(-1), None, topk, 1.0, renormalize=False)
    assert torch.equal(out[1].long(), chosen)
    check(out[0], weights)


def test_more_experts_than_a_warp_has_registers_for(moe: Any, check: Check) -> None:
    x, bias = logits_of(3, 1500, torch.float32) / 8, torch.randn(1500)
    out = outputs(3, 40)
    call(moe, "topk_softmax", out, x, renormalize=True)
    weights, chosen = routed(x.double().softmax(-1), None, 40, 1.0, renormalize=True)
    assert torch.equal(out[1].long(), chosen)
    check(out[0], weights)
    weights, chosen = moe.grouped_topk(x, 10, 3, 40, False, 1.0, bias, 1)
    want, want_chosen = grouped_reference(x.double().sigmoid(), bias, 10, 3, 40)
    assert torch.equal(chosen.long(), want_chosen)
    check(weights, want)


def test_bad_topk_arguments(moe: Any) -> None:
    x = torch.randn(3, 8)
    bad = {
        r"gating_output is of dtype Double": (outputs(3, 2), x.double(), {}),
        r"gating_output has shape \[8\], expected \[tokens, experts\]": (outputs(3, 2), x[0], {}),
        r"topk_weights has shape \[4, 2\], expected \[3, 2\]": (outputs(4, 2), x, {}),
        r"topk_weights is of dtype Half, expected Float": (
            (outputs(3, 2)[0].half(), *outputs(3, 2)[1:]),
            x,
            {},
        ),
        r"topk_indices is of dtype Short": (outputs(3, 2, torch.int16), x, {}),
        r"topk is 9, expected at most the 8 experts": (outputs(3, 9), x, {}),
        r"bias has shape \[7\], expected \[8\]": (outputs(3, 2), x, {"bias": torch.zeros(7)}),
        r"is_padding is of dtype Int, expected Bool": (
            outputs(3, 2),
            x,
            {"is_padding": torch.zeros(3, dtype=torch.int32)},
        ),
        r"is_padding has shape \[2\], expected \[3\]": (
            outputs(3, 2),
            x,
            {"is_padding": torch.zeros(2, dtype=torch.bool)},
        ),
        r"token_expert_indices has shape \[3, 1\]": ((*outputs(3, 2)[:2], outputs(3, 1)[2]), x, {}),
    }
    for message, (out, logits, more) in bad.items():
        with pytest.raises(RuntimeError, match=f"^topk_softmax: {message}"):
            call(moe, "topk_softmax", out, logits, **more)


def grouped_reference(
    scores: torch.Tensor, bias: torch.Tensor, groups: int, kept: int, topk: int
) -> tuple[torch.Tensor, torch.Tensor]:
    choice = scores + bias.double()
    if groups > 1:
        parts = choice.view(len(scores), groups, choice.shape[-1] // groups)
        worth = parts.topk(min(2, parts.shape[-1]), -1).values.sum(-1)
        best = worth.sort(dim=-1, descending=True, stable=True).indices[:, :kept]
        outside = torch.ones_like(worth, dtype=torch.bool).scatter(1, best, value=False)
        choice = parts.masked_fill(outside.unsqueeze(-1), -math.inf).view_as(choice)
    experts = choice.sort(dim=-1, descending=True, stable=True).indices[:, :topk]
    return scores.gather(1, experts), experts


@pytest.mark.parametrize("scoring", [0, 1])
@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        (1, 8, 2, 1, 2),
        (5, 256, 8, 4, 8),
        (3, 60, 4, 2, 7),
        (4, 64, 1, 1, 6),
        (2, 7, 7, 3, 2),
        (0, 8, 2, 1, 2),
        (150, 384, 3, 2, 8),
    ],
    ids=str,
)
def test_grouped_topk(
    moe: Any,
    check: Check,
    dtype: torch.dtype,
    *,
    scoring: int,
    renormalize: bool,
    shape: tuple[int, ...],
) -> None:
    tokens, experts, groups, kept, topk = shape
    x = logits_of(tokens, experts, dtype) / 4
    bias = torch.randn(experts)
    scores = x.double().sigmoid() if scoring else x.double().abs()
    weights, chosen = moe.grouped_topk(
        x if scoring else x.abs(), groups, kept, topk, renormalize, 2.5, bias, scoring
    )
    want, want_chosen = grouped_reference(scores, bias, groups, kept, topk)
    if renormalize:
        want = want / want.sum(-1, keepdim=True)
    assert weights.dtype == torch.float32
    assert chosen.dtype == torch.int32
    assert torch.equal(chosen.long(), want_chosen)
    check(weights, want * 2.5)


def test_grouped_topk_without_a_finite_score(moe: Any) -> None:
    weights, chosen = moe.grouped_topk(
        torch.full((2, 8), -math.inf), 4, 2, 3, True, 2.5, torch.zeros(8), 0
    )
    assert chosen.tolist() == [[0, 1, 2]] * 2
    torch.testing.assert_close(weights, torch.full((2, 3), 1 / 3))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({1: 3}, "n_group is 3, expected a divisor of the 8 experts"),
        ({1: 0}, "n_group is 0, expected at least 1"),
        ({2: 5}, "topk_group is 5, expected at most n_group 4"),
        ({3: 5}, "topk is 5, expected at most the 4 experts to choose from"),
        ({3: 0}, "topk is 0, expected at least 1"),
        ({6: torch.zeros(7)}, r"bias has shape \[7\], expected \[8\]"),
        ({7: 2}, r"scoring_func is 2, expected 0 \(none\) or 1 \(sigmoid\)"),
    ],
)
def test_bad_grouped_topk_arguments(moe: Any, changed: dict[int, Any], message: str) -> None:
    arguments = [torch.randn(2, 8), 4, 2, 2, True, 1.0, torch.zeros(8), 1]
    for position, value in changed.items():
        arguments[position] = value
    with pytest.raises(RuntimeError, match=f"^grouped_topk: {message}"):
        moe.grouped_topk(*arguments)


def int32(*shape: int) -> torch.Tensor:
    return torch.full(shape, 77, dtype=torch.int32)


def align_reference(
    ids: list[int], experts: int, block: int, expert_map: list[int] | None
) -> tuple[list[int], list[int]]:
    order, blocks = [], []
    for expert in range(experts):
        mine = [
            i
            for i, e in enumerate(ids)
            if 0 <= e < experts and (expert_map[e] if expert_map else e) == expert
        ]
        count = -(-len(mine) // block)
        order += mine + [len(ids)] * (count * block - len(mine))
        blocks += [expert] * count
    return order, blocks


@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
@given(
    tokens=st.integers(0, 30),
    topk=st.integers(1, 4),
    experts=st.integers(1, 9),
    block=st.integers(1, 17),
    mapped=st.booleans(),
    data=st.data(),
)
@settings(deadline=None, max_examples=EXAMPLES)
def test_align(
    moe: Any,
    *,
    index: torch.dtype,
    tokens: int,
    topk: int,
    experts: int,
    block: int,
    mapped: bool,
    data: Any,
) -> None:
    ids = torch.randint(-1, experts + 1, (topk, tokens)).to(index).t()
    where = data.draw(st.permutations(range(experts))) if mapped else None
    where = [e if e % 2 else -1 for e in where] if where else None
    spare = data.draw(st.integers(0, 5))
    length = ids.numel() + experts * (block - 1)
    order, blocks, total, scatter = (
        int32(length + spare),
        int32(length // block + 1 + spare),
        int32(1),
        int32(tokens, topk),
    )
    moe.moe_align_block_size(
        ids,
        experts,
        block,
        order,
        blocks,
        total,
        torch.tensor(where, dtype=torch.int32) if where else None,
        scatter,
    )
    flat = ids.reshape(-1).tolist()
    want, want_blocks = align_reference(flat, experts, block, where)
    assert total.item() == len(want)
    assert order.tolist() == want + [len(flat)] * (len(order) - len(want))
    assert blocks.tolist() == want_blocks + [-1] * (len(blocks) - len(want_blocks))
    taken = {route for route in want if route < len(flat)}
    assert scatter.reshape(-1).tolist() == [i if i in taken else -1 for i in range(len(flat))]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        CONTENTS(
            {0: torch.tensor([[0, -2]])},
            r"topk_ids\[0, 1\] is -2, expected an expert below 3, or -1 or 3 for no expert",
        ),
        CONTENTS({0: torch.tensor([[0, 4]])}, r"topk_ids\[0, 1\] is 4, expected an expert below 3"),
        ({0: torch.tensor([0, 1])}, r"topk_ids has shape \[2\], expected \[tokens, topk\]"),
        ({2: 0}, "block_size is 0, expected at least 1"),
        CONTENTS({3: int32(3)}, "sorted_token_ids has 3 elements, expected at least 4"),
        CONTENTS({4: int32(1)}, "experts_ids has 1 elements, expected at least 2"),
        ({4: int32(4, 1)}, r"experts_ids has shape \[4, 1\], expected one dimension"),
        ({6: int32(2)}, "maybe_expert_map has 2 elements, expected at least 3"),
        CONTENTS(
            {6: torch.tensor([0, 3, 1]).int()},
            r"maybe_expert_map\[1\] is 3, expected -1 or a number below num_experts 3",
        ),
        (
            {7: int32(3)},
            "scatter_idx has 3 elements, expected 2, the number of elements of topk_ids",
        ),
    ],
)
def test_bad_align_arguments_write_nothing(moe: Any, changed: dict[int, Any], message: str) -> None:
    arguments = [torch.tensor([[0, 2]]), 3, 2, int32(8), int32(4), int32(1), None, int32(2)]
    for position, value in changed.items():
        arguments[position] = value
    written = [arguments[i].clone() for i in (3, 4, 5, 7)]
    with pytest.raises(RuntimeError, match=f"^moe_align_block_size: {message}"):
        moe.moe_align_block_size(*arguments)
    assert all(
        torch.equal(arguments[i], before) for i, before in zip((3, 4, 5, 7), written, strict=True)
    )


@given(counts=st.lists(st.integers(0, 13), max_size=6), block=st.integers(1, 9))
@settings(deadline=None, max_examples=EXAMPLES)
def test_batched_align(moe: Any, counts: list[int], block: int) -> None:
    blocks_each = -(-13 // block)
    order, blocks, total = (
        int32(len(counts) * blocks_each * block),
        int32(len(counts) * blocks_each),
        int32(1),
    )
    moe.batched_moe_align_block_size(
        13, block, torch.tensor(counts, dtype=torch.int32), order, blocks, total
    )
    want, want_blocks = [], []
    for expert, count in enumerate(counts):
        used = -(-count // block)
        want += [expert * 13 + i for i in range(count)] + [len(counts) * 13] * (
            used * block - count
        )
        want_blocks += [expert] * used
    assert total.item() == len(want)
    assert order.tolist() == want + [len(counts) * 13] * (len(order) - len(want))
    assert blocks.tolist() == want_blocks + [-1] * (len(blocks) - len(want_blocks))


@pytest.mark.contents
def test_bad_batched_counts(moe: Any) -> None:
    with pytest.raises(
        RuntimeError, match=r"expert_num_tokens\[1\] is 5, expected 0 to max_tokens_per_batch 4"
    ):
        moe.batched_moe_align_block_size(
            4, 2, torch.tensor([1, 5], dtype=torch.int32), int32(8), int32(4), int32(1)
        )


def test_bad_batched_align_arguments(moe: Any) -> None:
    with pytest.raises(RuntimeError, match="sorted_token_ids has 7 elements, expected at least 8"):
        moe.batched_moe_align_block_size(
            4, 2, torch.tensor([1, 4], dtype=torch.int32), int32(7), int32(4), int32(1)
        )
    with pytest.raises(RuntimeError, match="exceed int32"):
        moe.batched_moe_align_block_size(
            2**31, 2, torch.tensor([1, 4], dtype=torch.int32), int32(8), int32(4), int32(1)
        )


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
@settings(deadline=None, max_examples=EXAMPLES)
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
