# SPDX-License-Identifier: Apache-2.0
"""Sample calls of the activations; tests/package/test_custom_ops.py describes the format."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

_GATES = {
    "silu_and_mul": functional.silu,
    "gelu_and_mul": functional.gelu,
    "gelu_tanh_and_mul": lambda v: functional.gelu(v, approximate="tanh"),
}
_ELEMENTWISE = {
    "gelu_new": lambda v: functional.gelu(v, approximate="tanh"),
    "gelu_fast": lambda v: functional.gelu(v, approximate="tanh"),
    "gelu_tanh": lambda v: functional.gelu(v, approximate="tanh"),
    "relu_squared": lambda v: functional.relu(v).square(),
    "gelu_quick": lambda v: v * torch.sigmoid(1.702 * v),
}


def _gate(function: Any) -> Any:
    def reference(_out: torch.Tensor, x: torch.Tensor) -> dict[int, torch.Tensor]:
        gate, value = x.chunk(2, dim=-1)
        return {0: function(gate) * value}

    return reference


def _clamped(
    gate: torch.Tensor, value: torch.Tensor, limit: float, alpha: float, beta: float
) -> torch.Tensor:
    gate = gate.clamp(max=limit)
    return gate * torch.sigmoid(alpha * gate) * (value.clamp(-limit, limit) + beta)


SAMPLES = {
    **{
        name: (lambda: (torch.empty(3, 5), torch.randn(3, 10)), _gate(function))
        for name, function in _GATES.items()
    },
    **{
        name: (
            lambda: (torch.empty(3, 5), torch.randn(3, 5)),
            lambda _out, x, f=function: {0: f(x)},
        )
        for name, function in _ELEMENTWISE.items()
    },
    "mul_and_silu": (
        lambda: (torch.empty(3, 5), torch.randn(3, 10)),
        lambda _out, x: {0: x[:, :5] * functional.silu(x[:, 5:])},
    ),
    "fatrelu_and_mul": (
        lambda: (torch.empty(3, 5), torch.randn(3, 10), 0.3),
        lambda _out, x, threshold: {0: functional.threshold(x[:, :5], threshold, 0.0) * x[:, 5:]},
    ),
    "silu_and_mul_with_clamp": (
        lambda: (torch.empty(3, 5), torch.randn(3, 10), 0.8, 1.3, 0.5),
        lambda _out, x, *numbers: {0: _clamped(x[:, :5], x[:, 5:], *numbers)},
    ),
    "swigluoai_and_mul": (
        lambda: (torch.empty(3, 5), torch.randn(3, 10), 1.702, 0.8),
        lambda _out, x, alpha, limit: {0: _clamped(x[:, 0::2], x[:, 1::2], limit, alpha, 1.0)},
    ),
    "silu_and_mul_quant": (
        lambda: (
            torch.empty(3, 5, dtype=torch.float8_e4m3fn),
            torch.randn(3, 10),
            torch.tensor([0.25]),
        ),
        lambda _out, x, scale: {
            0: (functional.silu(x[:, :5]) * x[:, 5:] / scale).to(torch.float8_e4m3fn)
        },
    ),
}
