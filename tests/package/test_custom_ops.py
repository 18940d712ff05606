# SPDX-License-Identifier: Apache-2.0
"""The wrappers with the real library: they call the right op, and torch's compiler accepts them.

tests/kernels tests the accuracy of the kernels.
"""

from __future__ import annotations

import importlib.util
import inspect
import runpy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

from vllm._kernels import ops

#: The wrappers that the tested library has; it is for the CPU.
NAMES = [name for name in ops.__all__ if name not in ops.GPU_ONLY]

#: Ops that create or free the object of a handle. Their calls all differ and cannot be traced.
#: tests/kernels tests them.
KEEPING = {
    "create_onednn_mm_handler",
    "create_onednn_scaled_mm_handler",
    "release_dnnl_matmul_handler",
}
PURE = [name for name in NAMES if name not in KEEPING]

#: Namespaces of upstream's ops, in the order in which a wrapper's op is looked up.
NAMESPACES = ("_C", "_C_cache_ops", "_moe_C")


@cache
def samples() -> dict[str, tuple[Callable[..., Any], Callable[..., Any]]]:
    """A sample call of every op, from op_samples/*.py: two functions.

    The first makes the arguments. The second gets these arguments and returns the expected contents
    of those that are written, by position, and of the result, under "return". Expected contents are
    computed with torch's ops.
    """
    found: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {}
    for path in sorted((Path(__file__).parent / "op_samples").glob("*.py")):
        mine = runpy.run_path(str(path))["SAMPLES"]
        assert not set(mine) & set(found), (
            f"{path} has a sample of an op that another file has, too"
        )
        found |= mine
    return found


def arguments(name: str) -> tuple[Any, ...]:
    import torch

    torch.manual_seed(len(name))
    return tuple(samples()[name][0]())


def op_of(name: str) -> Any:
    import torch

    spaces = [getattr(torch.ops, space) for space in NAMESPACES]
    return next(getattr(space, name) for space in spaces if hasattr(space, name)).default


def outcome(args: tuple[Any, ...], returned: Any, expected: dict[Any, Any]) -> dict[Any, Any]:
    """The results of a call that ``expected`` describes."""
    return {key: returned if key == "return" else args[key] for key in expected}


def copied(args: tuple[Any, ...]) -> tuple[Any, ...]:
    import torch

    return tuple(value.clone() if isinstance(value, torch.Tensor) else value for value in args)


def test_every_op_has_a_sample() -> None:
    pytest.importorskip("torch", reason="torch is not installed here")
    assert set(samples()) == set(NAMES)


@pytest.mark.parametrize("name", ops.__all__)
def test_documented(name: str) -> None:
    text = inspect.getdoc(getattr(ops, name)) or ""
    assert "Source: " in text
    assert all(
        f"    {argument}: " in text for argument in inspect.signature(getattr(ops, name)).parameters
    )


@pytest.fixture(scope="module", autouse=True)
def _fakes_of_the_engine() -> None:
    """With the engine, its module of ops registers the fakes that ``fakes.ENGINES`` lists."""
    if importlib.util.find_spec("vllm.engine") is not None:
        importlib.import_module("vllm._custom_ops")


@pytest.fixture
def reloaded(library: Path) -> Any:
    """The wrappers, imported again with the library loaded."""
    assert library.is_file()
    return ops


@pytest.mark.parametrize("name", PURE)
def test_computes(reloaded: Any, name: str) -> None:
    import torch

    args = arguments(name)
    expected = samples()[name][1](*copied(args))
    returned = getattr(reloaded, name)(*args)
    assert (returned is None) == ("return" not in expected)
    torch.testing.assert_close(outcome(args, returned, expected), expected)


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_the_schemas(library: Path, name: str) -> None:
    assert library.is_file()
    schema = op_of(name)._schema
    parameters = list(inspect.signature(getattr(ops, name)).parameters.values())
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
    args = arguments(name)
    tests = [
        "test_schema",
        "test_autograd_registration",
        "test_faketensor",
        "test_aot_dispatch_dynamic",
    ]
    if name in KEEPING:
        tests = tests[:2]
    if any(
        isinstance(value, torch.Tensor) and value.dtype.itemsize == 1 and value.is_floating_point()
        for value in args
    ):
        # opcheck compares contents with arithmetic that torch 2.13 lacks for float8.
        # test_writes_what_its_schema_says covers these ops.
        tests.remove("test_schema")
    torch.library.opcheck(op_of(name), args, test_utils=tests)


@pytest.mark.parametrize("name", PURE)
def test_writes_what_its_schema_says(reloaded: Any, name: str) -> None:
    import torch

    args = arguments(name)
    before = copied(args)
    getattr(reloaded, name)(*args)
    for argument, old, new in zip(op_of(name)._schema.arguments, before, args, strict=False):
        if isinstance(new, torch.Tensor) and argument.alias_info is None:
            assert torch.equal(old.flatten().view(torch.uint8), new.flatten().view(torch.uint8)), (
                argument.name
            )


@pytest.mark.parametrize("name", PURE)
def test_compiles_without_a_break(reloaded: Any, name: str) -> None:
    import torch

    eager, traced = arguments(name), arguments(name)
    expected = samples()[name][1](*copied(eager))
    returned = getattr(reloaded, name)(*eager)
    compiled = torch.compile(getattr(reloaded, name), backend="aot_eager", fullgraph=True)(*traced)
    torch.testing.assert_close(
        outcome(traced, compiled, expected), outcome(eager, returned, expected), rtol=0, atol=0
    )


@pytest.mark.parametrize(
    ("name", "broken"), [("silu_and_mul", 1), ("rms_norm", 2), ("rotary_embedding", 4)]
)
def test_wrong_shapes_are_errors(reloaded: Any, name: str, broken: int) -> None:
    import torch

    args = list(arguments(name))
    args[broken] = torch.empty(3, 3)
    with pytest.raises(RuntimeError):
        getattr(reloaded, name)(*args)
