# SPDX-License-Identifier: Apache-2.0
"""Checks whether an op accepts a case's arguments, on a machine that cannot run the op.

torch compares the arguments with the schema before it looks for a kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from kernels.workload import Workload

#: Namespaces of the libraries' ops.
NAMESPACES = ("_C", "_C_cache_ops", "_moe_C", "_vllm_fa2_C", "_vllm_fa3_C", "_flashmla_C")


class _Taken(Exception):  # noqa: N818 - an answer, not an error
    """The arguments fit the schema."""


class _Stop(TorchDispatchMode):  # type: ignore[misc]  # torch is unknown to the check
    """Stops a call of a library's op before its kernel would run."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if func.namespace in NAMESPACES:
            raise _Taken
        return func(*args, **(kwargs or {}))


def fit(peer: str, workload: Workload) -> dict[str, Any]:
    """Check a workload.

    Returns:
        ``{"fits": "the schema"}`` for a library, ``{"fits": "runs"}`` if PyTorch computes results
        of the op's shapes and dtypes, or ``{"skipped": why}``.

    Raises:
        AttributeError: there is no such op.
        ValueError: PyTorch's results have other shapes or dtypes than the op's outputs, or no op
            was called.
        RuntimeError: torch refuses the arguments.
    """
    if peer not in ("ours", "official"):
        if workload.no_torch:
            return {"skipped": workload.no_torch}
        results = workload.torch(*workload.args)
        for got, want in zip(results, workload.outputs or results, strict=True):
            if (got.shape, got.dtype) != (want.shape, want.dtype):
                raise ValueError(
                    f"PyTorch computes {got.dtype} {list(got.shape)}, the op writes {want.dtype} "
                    f"{list(want.shape)}"
                )
        return {"fits": "runs"}
    with _Stop():
        try:
            workload.bind()()
        except _Taken:
            return {"fits": "the schema"}
    raise ValueError("the call does not use an op of the library")
