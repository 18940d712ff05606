# SPDX-License-Identifier: Apache-2.0
"""The wrappers against the real library: that they reach the op they name, and that torch's compiler understands what it sees.

How exact the kernels are is the business of tests/kernels.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

from vllm import _custom_ops

NAMES = [name for name, function in inspect.getmembers(_custom_ops, inspect.isfunction) if function.__module__ == _custom_ops.__name__]


def arguments(name: str) -> tuple[Any, ...]:
    """Arguments of a call that works; the first ones are written to."""
    import torch

    generator = torch.Generator().manual_seed(len(name))

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    if name.endswith("_and_mul"):
        return torch.empty(3, 5), random(3, 10)
    if name.startswith("gelu"):
        return torch.empty(3, 5), random(3, 5)
    if name == "rms_norm":
        return torch.empty(3, 5), random(3, 5), random(5), 1e-6
    if name == "fused_add_rms_norm":
        return random(3, 5), random(3, 5), random(5), 1e-6
    angle = random(7, 4)
    cache = torch.cat((angle.cos(), angle.sin()), dim=-1)
    return torch.tensor([2, 0, 6]), random(3, 2 * 8), random(3, 8), 8, cache, True


def reference(name: str, *args: Any) -> tuple[Any, ...]:
    """What the tensors that ``name`` writes to must hold afterwards, by torch's own ops in float32."""
    import torch
    from torch.nn import functional

    exact: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "silu_and_mul": functional.silu,
        "gelu_and_mul": functional.gelu,
        "gelu_tanh_and_mul": lambda v: functional.gelu(v, approximate="tanh"),
        "gelu_new": lambda v: functional.gelu(v, approximate="tanh"),
        "gelu_fast": lambda v: functional.gelu(v, approximate="tanh"),
        "gelu_quick": lambda v: v * torch.sigmoid(1.702 * v),
    }
    if name.endswith("_and_mul"):
        gate, value = args[1].chunk(2, dim=-1)
        return (exact[name](gate) * value,)
    if name in exact:
        return (exact[name](args[1]),)
    if name == "rms_norm":
        return (functional.rms_norm(args[1], (5,), args[2], 1e-6),)
    if name == "fused_add_rms_norm":
        total = args[0] + args[1]
        return functional.rms_norm(total, (5,), args[2], 1e-6), total
    positions, query, key, head, cache, _ = args

    def rotate(flat: torch.Tensor) -> torch.Tensor:
        cos, sin = cache[positions].unsqueeze(1).chunk(2, dim=-1)
        a, b = flat.view(len(positions), -1, head).chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).view_as(flat)

    return rotate(query), rotate(key)


def written(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return args[1:3] if name == "rotary_embedding" else args[:2] if name == "fused_add_rms_norm" else args[:1]


def test_these_are_the_ops() -> None:
    assert set(NAMES) == {
        "silu_and_mul",
        "gelu_and_mul",
        "gelu_tanh_and_mul",
        "gelu_new",
        "gelu_fast",
        "gelu_quick",
        "rms_norm",
        "fused_add_rms_norm",
        "rotary_embedding",
    }


@pytest.mark.parametrize("name", NAMES)
def test_documented(name: str) -> None:
    text = inspect.getdoc(getattr(_custom_ops, name)) or ""
    assert "Source: " in text
    assert all(f"    {argument}: " in text for argument in inspect.signature(getattr(_custom_ops, name)).parameters)


@pytest.fixture
def reloaded(library: Path) -> Any:
    """The wrappers with the library loaded, which they are on import wherever it exists."""
    assert library.is_file()
    return _custom_ops


@pytest.mark.parametrize("name", NAMES)
def test_computes(reloaded: Any, name: str) -> None:
    import torch

    args = arguments(name)
    expected = reference(name, *(value.clone() if isinstance(value, torch.Tensor) else value for value in args))
    assert getattr(reloaded, name)(*args) is None
    for got, want in zip(written(name, args), expected, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_the_schemas(library: Path, name: str) -> None:
    import torch

    assert library.is_file()
    schema = getattr(torch.ops._C, name).default._schema
    parameters = list(inspect.signature(getattr(_custom_ops, name)).parameters.values())
    assert len(schema.arguments) == len(parameters)
    for argument, parameter in zip(schema.arguments, parameters, strict=True):
        if not (argument.alias_info and argument.alias_info.is_write) and parameter.name != "x":
            assert argument.name == parameter.name
        assert argument.has_default_value() == (parameter.default is not parameter.empty)
        if argument.has_default_value():
            assert argument.default_value == parameter.default


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(library: Path, name: str) -> None:
    import torch

    assert library.is_file()
    torch.library.opcheck(getattr(torch.ops._C, name).default, arguments(name))


@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_a_break(reloaded: Any, name: str) -> None:
    import torch

    eager, traced = arguments(name), arguments(name)
    getattr(reloaded, name)(*eager)
    torch.compile(getattr(reloaded, name), backend="aot_eager", fullgraph=True)(*traced)
    for got, want in zip(written(name, traced), written(name, eager), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "broken"), [("silu_and_mul", 1), ("rms_norm", 2), ("rotary_embedding", 4)])
def test_wrong_shapes_are_errors(reloaded: Any, name: str, broken: int) -> None:
    import torch

    args = list(arguments(name))
    args[broken] = torch.empty(3, 3)
    with pytest.raises(RuntimeError):
        getattr(reloaded, name)(*args)
