# SPDX-License-Identifier: Apache-2.0
"""Calls ops with wrong arguments; a separate program, because a kernel may end the process.

    python op_cases.py OP...     names of the ops to call

For each tensor argument of an op's sample (op_samples/*.py), it calls the op with that argument
replaced by a tensor of another dtype, with one dimension more or less, with one element more in its
last dimension, and by an equal tensor whose elements are not contiguous. Before a call it prints
``[op, argument, case]``, and after it the outcome, each as a line of JSON: the text of the error,
whether any argument has changed, or how the result differs from the sample's.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vllm._kernels import loader

if TYPE_CHECKING:
    from collections.abc import Callable

NAMESPACES = ("_C", "_C_cache_ops", "_moe_C")


def samples() -> dict[str, tuple[Callable[..., Any], Any]]:
    found: dict[str, tuple[Callable[..., Any], Any]] = {}
    for path in sorted((Path(__file__).parent / "op_samples").glob("*.py")):
        found |= runpy.run_path(str(path))["SAMPLES"]
    return found


def longer(x: torch.Tensor) -> torch.Tensor:
    return torch.cat((x, x[..., -1:]), dim=-1) if x.dim() else x[None].expand(2).clone()


def apart(x: torch.Tensor) -> torch.Tensor:
    """An equal tensor with space between its rows."""
    wide = torch.zeros(*x.shape[:-1], x.shape[-1] + 3, dtype=x.dtype)
    return wide[..., 1:-2].copy_(x)


def columns(x: torch.Tensor) -> torch.Tensor:
    """An equal tensor whose last dimension is not contiguous."""
    return x.mT.contiguous().mT if x.dim() > 1 else torch.stack((x, x), dim=-1)[:, 0]


WRONG = {
    "dtype": lambda x: x.to(torch.complex64),
    "rank": lambda x: x[None],
    "flat": lambda x: (
        x.flatten() if x.dim() > 1 else x.sum(0, dtype=x.dtype) if x.dim() else x[None, None]
    ),
    "longer": longer,
}
EQUAL = {"apart": apart, "columns": columns}


def memory(args: list[Any]) -> list[bytes]:
    """All bytes of the tensors' storage, including those between elements."""
    storages = [value.untyped_storage() for value in args if isinstance(value, torch.Tensor)]
    return [
        bytes(torch.empty(0, dtype=torch.uint8).set_(storage).numpy().data) for storage in storages
    ]


def sample(make: Callable[..., Any]) -> list[Any]:
    torch.manual_seed(0)
    return list(make())


def outcome(op: Any, args: list[Any]) -> dict[str, Any]:
    before = memory(args)
    try:
        returned = op(*args)
    except RuntimeError as error:
        return {"error": str(error), "changed": memory(args) != before}
    return {"returned": returned, "args": args}


def tensors(result: dict[str, Any]) -> list[torch.Tensor]:
    returned = (
        result["returned"] if isinstance(result["returned"], tuple) else (result["returned"],)
    )
    return [value for value in (*returned, *result["args"]) if isinstance(value, torch.Tensor)]


def compare(got: dict[str, Any], want: dict[str, Any]) -> dict[str, Any]:
    """Differences of two outcomes; arguments that are not written are always equal."""
    if "error" in got:
        return got
    try:
        torch.testing.assert_close(tensors(got), tensors(want), equal_nan=True)
    except AssertionError as error:
        return {"differs": str(error)}
    return {"same": True}


def say(line: Any) -> None:
    print(json.dumps(line), flush=True)


def run(name: str, make: Callable[..., Any]) -> None:
    op = next(
        getattr(getattr(torch.ops, space), name)
        for space in NAMESPACES
        if hasattr(getattr(torch.ops, space), name)
    ).default
    plain = outcome(op, sample(make))
    for position, value in enumerate(sample(make)):
        if not isinstance(value, torch.Tensor):
            continue
        argument = op._schema.arguments[position].name
        for case, change in (WRONG | EQUAL).items():
            args = sample(make)
            if case == "apart" and not value.dim():
                continue
            if case == "columns" and not value.dim():
                continue
            args[position] = change(args[position])
            say([name, argument, case])
            result = outcome(op, args)
            say(
                compare(result, plain)
                if case in EQUAL
                else {key: result[key] for key in ("error", "changed") if key in result}
            )


if __name__ == "__main__":
    loader.load()
    chosen = samples()
    for wanted in sys.argv[1:]:
        run(wanted, chosen[wanted][0])
