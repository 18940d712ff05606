# SPDX-License-Identifier: Apache-2.0
"""Switches the engine's layers on the CPU to our fused ops.

Upstream's CPU path computes norms and activations with torch's ops, one pass over memory for each
step. Two of upstream's hooks lead to ours: a provider of its internal ops, and the methods that its
layers call on a CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vllm._kernels.loader import namespace

if TYPE_CHECKING:
    from collections.abc import Callable

_C = namespace("_C")

#: Class of upstream's ``vllm.model_executor.layers.activation`` → our op, which has half as many
#: elements in a row of its output.
GATED = {"SiluAndMul": "silu_and_mul"}
#: The same for ops whose output has the shape of the input.
PLAIN = {
    "FastGELU": "gelu_fast",
    "NewGELU": "gelu_new",
    "QuickGELU": "gelu_quick",
    "ReLUSquaredActivation": "relu_squared",
}
#: Approximation of GELU → op of the gated layer.
GELU = {"none": "gelu_and_mul", "tanh": "gelu_tanh_and_mul"}


def _gate(name: str, x: torch.Tensor) -> torch.Tensor:
    out = torch.empty((*x.shape[:-1], x.shape[-1] // 2), dtype=x.dtype)
    getattr(_C, name)(out, x)
    return out


def _gated(name: str) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    def forward_cpu(layer: object, x: torch.Tensor) -> torch.Tensor:
        del layer
        return _gate(name, x)

    return forward_cpu


def _plain(name: str) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    def forward_cpu(layer: object, x: torch.Tensor) -> torch.Tensor:
        del layer
        out = torch.empty_like(x)
        getattr(_C, name)(out, x)
        return out

    return forward_cpu


def _gelu(layer: Any, x: torch.Tensor) -> torch.Tensor:
    return _gate(GELU[layer.approximate], x)


def use_activations() -> None:
    """Let the engine's layers call our activations on a CPU.

    A model that torch.compile compiles does not call these methods: its activations are fused.
    """
    from vllm.model_executor.layers import activation  # noqa: PLC0415 - imports this platform

    for class_name, op in GATED.items():
        getattr(activation, class_name).forward_cpu = _gated(op)
    for class_name, op in PLAIN.items():
        getattr(activation, class_name).forward_cpu = _plain(op)
    activation.GeluAndMul.forward_cpu = _gelu


def _supports(x: torch.Tensor, weight: torch.Tensor | None, variance_size: int | None) -> bool:
    """Whether our norms take these arguments: one dtype, and the variance of whole rows."""
    return (
        variance_size is None and (weight is None or weight.dtype == x.dtype) and x.stride(-1) == 1
    )


def register_norms(provider: str) -> None:
    """Register our norms with the engine under a name, once."""
    from vllm.ir import ops  # noqa: PLC0415 - the engine is not there without it

    if provider in ops.rms_norm.impls:
        return

    def supports_norm(
        x: torch.Tensor,
        weight: torch.Tensor | None,
        epsilon: float,
        variance_size: int | None = None,
    ) -> bool:
        del epsilon
        return _supports(x, weight, variance_size)

    @ops.rms_norm.register_impl(provider, supports_args=supports_norm)  # type: ignore[untyped-decorator]
    def rms_norm(
        x: torch.Tensor,
        weight: torch.Tensor | None,
        epsilon: float,
        variance_size: int | None = None,
    ) -> torch.Tensor:
        del variance_size
        out = torch.empty(x.shape, dtype=x.dtype)
        _C.rms_norm(out, x, weight, epsilon)
        return out

    def supports_sum(
        x: torch.Tensor,
        x_residual: torch.Tensor,
        weight: torch.Tensor | None,
        epsilon: float,
        variance_size: int | None = None,
    ) -> bool:
        del epsilon
        return (
            _supports(x, weight, variance_size)
            and x_residual.dtype == x.dtype
            and x_residual.stride(-1) == 1
        )

    @ops.fused_add_rms_norm.register_impl(  # type: ignore[untyped-decorator]
        provider, supports_args=supports_sum, inplace=True
    )
    def fused_add_rms_norm(
        x: torch.Tensor,
        x_residual: torch.Tensor,
        weight: torch.Tensor | None,
        epsilon: float,
        variance_size: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        del variance_size
        _C.fused_add_rms_norm(x, x_residual, weight, epsilon)
        return x, x_residual
