# SPDX-License-Identifier: Apache-2.0
"""Routing of tokens to experts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from row_cases import Check, Strided


#: Tokens, experts, choices: one of each; no multiples of a vector; all experts; empty; enough for
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


def logits_of(tokens: int, experts: int, dtype: torch.dtype) -> torch.Tensor:
    """Values that differ by more than the dtype's rounding, so the choice is unambiguous."""
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
def test_experts_are_distinct_for_all_logits(moe: Any, name: str, value: float) -> None:
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
