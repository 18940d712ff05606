# SPDX-License-Identifier: Apache-2.0
"""Runs as a program of its own, as a kernel that trusts a bad argument may end the process.

    python op_cases.py OP...     the ops to call, by their names

For each tensor argument of an op's sample (op_samples/*.py) it calls the op with that argument
replaced: by one of another dtype, with a dimension more or one less, with one element more in its
last dimension, and by equal ones whose elements lie apart in memory. Before a call it prints ``[op,
argument, case]``, after it the outcome, each as a line of JSON: the error's text, whether any
argument has changed, or how the result differs from that of the sample.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vllm import _ops

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
    """Rows with room between them."""
    wide = torch.zeros(*x.shape[:-1], x.shape[-1] + 3, dtype=x.dtype)
    return wide[..., 1:-2].copy_(x)


def columns(x: torch.Tensor) -> torch.Tensor:
    """The last dimension is not the one that lies side by side."""
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
    """All bytes behind the tensors, those between their elements too."""
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
    """Only written arguments and what is returned may differ from call to call; the others are equal anyway."""
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
    _ops.load()
    chosen = samples()
    for wanted in sys.argv[1:]:
        run(wanted, chosen[wanted][0])
