# SPDX-License-Identifier: Apache-2.0
"""The fused layers of the experts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable


#: Tokens, choices, experts, hidden, inner: one of each; no whole panel; experts without tokens;
#: more tokens than a block of rows and than a part; empty.
SHAPES = [
    (1, 1, 1, 1, 1),
    (3, 2, 4, 33, 17),
    (1, 2, 8, 64, 32),
    (7, 3, 3, 300, 40),
    (300, 2, 3, 48, 24),
    (40, 1, 2, 64, 32),
    (300, 2, 3, 96, 64),
    (0, 2, 4, 16, 16),
    (2, 0, 4, 16, 16),
]


def swigluoai(both: torch.Tensor) -> torch.Tensor:
    gate, up = both[..., ::2].clamp(max=7), both[..., 1::2].clamp(-7, 7)
    return gate * torch.sigmoid(1.702 * gate) * (up + 1)


def halves(
    function: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor], torch.Tensor]:
    def gated(both: torch.Tensor) -> torch.Tensor:
        gate, up = both.chunk(2, -1)
        return function(gate) * up

    return gated


ACTIVATIONS = {
    "silu": halves(F.silu),
    "gelu": halves(F.gelu),
    "gelu_tanh": halves(lambda x: F.gelu(x, approximate="tanh")),
    "swigluoai": swigluoai,
}


def layer(
    experts: int, hidden: int, inner: int, dtype: torch.dtype, *, bias: bool
) -> dict[str, Any]:
    return {
        "w13": (torch.randn(experts, 2 * inner, hidden) / math.sqrt(hidden) * 2).to(dtype),
        "w2": (torch.randn(experts, hidden, inner) / math.sqrt(inner)).to(dtype),
        "w13_bias": torch.randn(experts, 2 * inner).to(dtype) if bias else None,
        "w2_bias": torch.randn(experts, hidden).to(dtype) if bias else None,
    }


def reference(
    x: torch.Tensor, w: dict[str, Any], weights: torch.Tensor, ids: torch.Tensor, act: str
) -> tuple[torch.Tensor, float]:
    """The result, and by how much one element of the gates' results, rounded otherwise, changes it.

    bfloat16 rounds these results. A float32 sum next to the middle of two numbers may be rounded to
    the other one.
    """
    w = {name: value.double() if value is not None else None for name, value in w.items()}
    out = torch.zeros(x.shape, dtype=torch.float64)
    slack = 0.0
    for token, choice in torch.cartesian_prod(
        torch.arange(ids.shape[0]), torch.arange(ids.shape[1])
    ).tolist():
        expert = int(ids[token, choice])
        if not 0 <= expert < len(w["w13"]):
            continue
        both = w["w13"][expert] @ x[token].double() + (
            0 if w["w13_bias"] is None else w["w13_bias"][expert]
        )
        gated = ACTIVATIONS[act](both)
        if x.dtype == torch.bfloat16:
            gated = gated.to(x.dtype).double()
            largest = float((w["w2"][expert] * gated).abs().max()) if gated.numel() else 0.0
            slack += largest * 2**-8 * float(weights[token, choice])
        row = w["w2"][expert] @ gated + (0 if w["w2_bias"] is None else w["w2_bias"][expert])
        out[token] += weights[token, choice].double() * row
    return out, slack


def run(
    ops: Any,
    out: torch.Tensor,
    x: torch.Tensor,
    w: dict[str, Any],
    weights: torch.Tensor,
    ids: torch.Tensor,
    act: str,
) -> None:
    packed = {}
    for name in ("w13", "w2"):
        packed[name] = torch.empty_like(w[name], memory_format=torch.contiguous_format)
        ops.prepack_moe_weight(w[name], packed[name], "vec")
    ops.cpu_fused_moe(
        out,
        x,
        packed["w13"],
        packed["w2"],
        w["w13_bias"],
        w["w2_bias"],
        weights,
        ids,
        False,
        act,
        "vec",
    )


def close(out: torch.Tensor, reference: tuple[torch.Tensor, float]) -> None:
    want, slack = reference
    relative = {torch.float32: 1e-4, torch.bfloat16: 2**-8, torch.float16: 2**-10}[out.dtype]
    torch.testing.assert_close(out.double(), want, rtol=relative, atol=2e-5 + slack)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
def test_experts(
    ops: Any, dtype: torch.dtype, shape: tuple[int, ...], act: str, *, bias: bool
) -> None:
    tokens, topk, experts, hidden, inner = shape
    w = layer(experts, hidden, inner, dtype, bias=bias)
    x = torch.randn(tokens, hidden).to(dtype)
    ids = (
        torch.rand(tokens, experts).argsort(-1)[:, :topk].int()
        if topk <= experts
        else torch.zeros(tokens, topk, dtype=torch.int32)
    )
    weights = torch.rand(tokens, topk)
    out = torch.full((tokens, hidden), math.nan, dtype=dtype)
    run(ops, out, x, w, weights, ids, act)
    close(out, reference(x, w, weights, ids, act))


@given(
    tokens=st.integers(1, 9),
    topk=st.integers(1, 3),
    experts=st.integers(1, 4),
    hidden=st.integers(1, 40),
    inner=st.integers(1, 40),
    pad=st.integers(0, 5),
    data=st.data(),
)
def test_shapes_strides_and_routes_not_taken(
    ops: Any,
    dtype: torch.dtype,
    *,
    tokens: int,
    topk: int,
    experts: int,
    hidden: int,
    inner: int,
    pad: int,
    data: Any,
) -> None:
    act = data.draw(st.sampled_from(sorted(ACTIVATIONS)))
    w = layer(experts, hidden, inner, dtype, bias=True)
    w["w13"] = w["w13"].transpose(1, 2).contiguous().transpose(1, 2)
    x, out = (
        torch.randn(tokens, hidden + pad).to(dtype)[:, pad:],
        torch.zeros(tokens, hidden + pad, dtype=dtype)[:, pad:],
    )
    ids = (
        torch.randint(-1, experts + 1, (topk, tokens))
        .to(data.draw(st.sampled_from([torch.int32, torch.int64])))
        .t()
    )
    weights = torch.rand(topk, tokens).t()
    run(ops, out, x, w, weights, ids, act)
    close(out, reference(x, w, weights, ids, act))
    assert out._base is None or torch.equal(
        out._base[:, :pad], torch.zeros(tokens, pad, dtype=dtype)
    )


def test_tokens_are_taken_in_parts(ops: Any) -> None:
    """So many tokens that the intermediate results exceed the memory reserved for them."""
    tokens, inner = 600, 8192
    w = layer(2, 2, inner, torch.float32, bias=False)
    x, ids, weights = (
        torch.randn(tokens, 2),
        torch.randint(0, 2, (tokens, 2)),
        torch.rand(tokens, 2),
    )
    out = torch.empty(tokens, 2)
    run(ops, out, x, w, weights, ids, "silu")
    both = torch.einsum("eoh,th->teo", w["w13"].double(), x.double())
    rows = torch.einsum("eho,teo->teh", w["w2"].double(), ACTIVATIONS["silu"](both))
    chosen = rows.gather(1, ids.unsqueeze(-1).expand(-1, -1, 2))
    torch.testing.assert_close(
        out.double(), (chosen * weights.double().unsqueeze(-1)).sum(1), rtol=1e-3, atol=1e-4
    )


def test_packed_weights_at_any_address(ops: Any, dtype: torch.dtype) -> None:
    """The memory for packed weights is the caller's, and no vector or tile needs an aligned one."""
    w = layer(2, 64, 32, dtype, bias=False)
    packed = {}
    for name in ("w13", "w2"):
        packed[name] = torch.empty(w[name].numel() + 1, dtype=dtype)[1:].view(w[name].shape)
        ops.prepack_moe_weight(w[name], packed[name], "amx")
    x, weights = torch.randn(40, 64).to(dtype), torch.rand(40, 1)
    ids = (torch.arange(40) < 3).int().view(40, 1)
    out = torch.empty(40, 64, dtype=dtype)
    both = packed["w13"], packed["w2"]
    ops.cpu_fused_moe(out, x, *both, None, None, weights, ids, False, "silu", "amx")
    close(out, reference(x, w, weights, ids, "silu"))


def test_weights_in_the_input(ops: Any) -> None:
    w = layer(3, 20, 10, torch.float32, bias=False)
    x, ids, weights = torch.randn(4, 20), torch.tensor([[0], [2], [1], [0]]), torch.rand(4, 1)
    packed = [torch.empty_like(w[name]) for name in ("w13", "w2")]
    for name, memory in zip(("w13", "w2"), packed, strict=True):
        ops.prepack_moe_weight(w[name], memory, "amx")
    out, before = torch.empty(4, 20), weights.clone()
    ops.cpu_fused_moe(out, x, *packed, None, None, weights, ids, True, "silu", "amx")
    close(out, reference(x, w, torch.ones(4, 1), ids, "silu"))
    assert torch.equal(weights, before)
    with pytest.raises(
        RuntimeError, match="skip_weighted is True with 2 experts a token, expected one"
    ):
        ops.cpu_fused_moe(
            out, x, *packed, None, None, torch.rand(4, 2), ids.expand(4, 2), True, "silu", "amx"
        )


def test_threads_change_no_bit(ops: Any, dtype: torch.dtype) -> None:
    w = layer(5, 300, 200, dtype, bias=True)
    x, ids, weights = (
        torch.randn(60, 300).to(dtype),
        torch.randint(0, 5, (60, 2)),
        torch.rand(60, 2),
    )
    many, one = torch.empty(60, 300, dtype=dtype), torch.empty(60, 300, dtype=dtype)
    run(ops, many, x, w, weights, ids, "silu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run(ops, one, x, w, weights, ids, "silu")
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(many, one)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({0: torch.zeros(2, 7)}, r"output has shape \[2, 7\], expected \[2, 8\]"),
        ({1: torch.zeros(2, 8).double()}, "input is of dtype Double"),
        (
            {2: torch.zeros(3, 11, 8)},
            r"w13 has shape \[3, 11, 8\], expected \[experts, 2 \* inner, 8\]",
        ),
        ({2: torch.zeros(3, 12, 8).half()}, "w13 is of dtype Half, expected Float"),
        (
            {2: torch.zeros(3, 8, 12).transpose(1, 2)},
            "w13 has strides .*, expected a contiguous tensor",
        ),
        ({3: torch.zeros(3, 8, 5)}, r"w2 has shape \[3, 8, 5\], expected \[3, 8, 6\]"),
        ({4: torch.zeros(3, 11)}, r"w13_bias has shape \[3, 11\], expected \[3, 12\]"),
        ({5: torch.zeros(2, 8)}, r"w2_bias has shape \[2, 8\], expected \[3, 8\]"),
        ({6: torch.zeros(2, 2).half()}, "topk_weights is of dtype Half, expected Float"),
        (
            {7: torch.tensor([[0, 1], [2, 4]])},
            r"topk_id\[1, 1\] is 4, expected an expert below 3, or -1 or 3 for no expert",
        ),
        (
            {7: torch.tensor([[0, -2], [2, 1]])},
            r"topk_id\[0, 1\] is -2, expected an expert below 3",
        ),
        (
            {7: torch.zeros(3, 2, dtype=torch.int32)},
            r"topk_id has shape \[3, 2\], expected \[2, 2\]",
        ),
        ({9: "relu"}, "act is 'relu', expected silu, gelu, gelu_tanh or swigluoai"),
        ({10: "mmx"}, "isa is 'mmx', expected vec"),
    ],
)
def test_bad_arguments_write_nothing(ops: Any, changed: dict[int, Any], message: str) -> None:
    w13, w2, ids = torch.zeros(3, 12, 8), torch.zeros(3, 8, 6), torch.tensor([[0, 1], [2, 1]])
    arguments = [
        torch.full((2, 8), 7.0),
        torch.zeros(2, 8),
        w13,
        w2,
        None,
        None,
        torch.zeros(2, 2),
        ids,
        False,
        "silu",
        "vec",
    ]
    for position, value in changed.items():
        arguments[position] = value
    before = arguments[0].clone()
    with pytest.raises(RuntimeError, match=f"^cpu_fused_moe: {message}"):
        ops.cpu_fused_moe(*arguments)
    assert torch.equal(arguments[0], before)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {0: torch.zeros(2, 3)},
            r"weight has shape \[2, 3\], expected \[experts, outputs, inputs\]",
        ),
        ({1: torch.zeros(2, 3, 5)}, r"packed_weight has shape \[2, 3, 5\], expected \[2, 3, 4\]"),
        ({1: torch.zeros(2, 3, 4).half()}, "packed_weight is of dtype Half, expected Float"),
        (
            {1: torch.zeros(2, 4, 3).transpose(1, 2)},
            "packed_weight has strides .*, expected a contiguous tensor",
        ),
        ({2: ""}, "isa is '', expected vec"),
    ],
)
def test_bad_weights(ops: Any, changed: dict[int, Any], message: str) -> None:
    arguments = [torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), "vec"]
    for position, value in changed.items():
        arguments[position] = value
    with pytest.raises(RuntimeError, match=f"^prepack_moe_weight: {message}"):
        ops.prepack_moe_weight(*arguments)
    with pytest.raises(RuntimeError, match="packed_weight is weight itself"):
        ops.prepack_moe_weight(w := torch.zeros(2, 3, 4), w, "vec")
