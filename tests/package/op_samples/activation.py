# SPDX-License-Identifier: Apache-2.0
"""Calls of the activations; how such a file is read: tests/package/test_custom_ops.py."""

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
    "gelu_quick": lambda v: v * torch.sigmoid(1.702 * v),
}


def _gate(function: Any) -> Any:
    def reference(_out: torch.Tensor, x: torch.Tensor) -> dict[int, torch.Tensor]:
        gate, value = x.chunk(2, dim=-1)
        return {0: function(gate) * value}

    return reference


SAMPLES = {
    **{name: (lambda: (torch.empty(3, 5), torch.randn(3, 10)), _gate(function)) for name, function in _GATES.items()},
    **{
        name: (lambda: (torch.empty(3, 5), torch.randn(3, 5)), lambda _out, x, f=function: {0: f(x)})
        for name, function in _ELEMENTWISE.items()
    },
}
