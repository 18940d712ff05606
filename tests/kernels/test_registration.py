# SPDX-License-Identifier: Apache-2.0
"""The ops' schemas equal upstream's, and have properties that the compiler relies on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

#: Printed from upstream's 0.33.0 libraries. torch prints the anonymous alias of ``Tensor!`` as
#: ``$0``.
SCHEMAS = {
    "silu_and_mul": "_C::silu_and_mul(Tensor($0! -> ) result, Tensor input) -> ()",
    "gelu_and_mul": "_C::gelu_and_mul(Tensor($0! -> ) out, Tensor input) -> ()",
    "gelu_tanh_and_mul": "_C::gelu_tanh_and_mul(Tensor($0! -> ) out, Tensor input) -> ()",
    "gelu_new": "_C::gelu_new(Tensor($0! -> ) out, Tensor input) -> ()",
    "gelu_fast": "_C::gelu_fast(Tensor($0! -> ) out, Tensor input) -> ()",
    "gelu_quick": "_C::gelu_quick(Tensor($0! -> ) out, Tensor input) -> ()",
    "rms_norm": (
        "_C::rms_norm(Tensor($0! -> ) result, Tensor input, Tensor? weight, float epsilon) -> ()"
    ),
    "fused_add_rms_norm": (
        "_C::fused_add_rms_norm(Tensor($0! -> ) input, Tensor($1! -> ) residual, "
        "Tensor? weight, float epsilon) -> ()"
    ),
    "rotary_embedding": (
        "_C::rotary_embedding(Tensor positions, Tensor($0! -> ) query, Tensor($1! -> )? key, int "
        "head_size, Tensor cos_sin_cache, "
        "bool is_neox, int rope_dim_offset=0, bool inverse=False) -> ()"
    ),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema(ops: Any, name: str) -> None:
    assert str(getattr(ops, name).default._schema) == SCHEMAS[name]


def arguments(name: str, dtype: torch.dtype) -> tuple[Any, ...]:
    x = torch.randn(5, 34).to(dtype)
    if name.endswith("_and_mul"):
        return (torch.empty(5, 17, dtype=dtype), x)
    if name.startswith("gelu"):
        return (torch.empty_like(x), x)
    if name == "rms_norm":
        return (torch.empty_like(x), x, torch.ones(34, dtype=dtype), 1e-6)
    if name == "fused_add_rms_norm":
        return (x, torch.randn(5, 34).to(dtype), None, 1e-6)
    cache = torch.randn(9, 16).to(dtype)
    return (
        torch.arange(5),
        torch.randn(5, 32).to(dtype),
        torch.randn(5, 16).to(dtype),
        16,
        cache,
        True,
        0,
        True,
    )


@pytest.mark.parametrize("name", SCHEMAS)
def test_opcheck(ops: Any, dtype: torch.dtype, name: str) -> None:
    results = torch.library.opcheck(getattr(ops, name).default, arguments(name, dtype))
    assert set(results.values()) == {"SUCCESS"}


def test_instruction_set_has_a_name(ops: Any) -> None:
    assert ops.cpu_isa() == ops.cpu_isa().lower() != ""
