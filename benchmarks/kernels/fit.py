# SPDX-License-Identifier: Apache-2.0
"""Whether an op takes a case's arguments, on a machine that cannot run it: torch compares them with the schema before it looks for code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from kernels.workload import Workload

#: What the libraries register ops in.
NAMESPACES = ("_C", "_C_cache_ops", "_moe_C", "_vllm_fa2_C", "_vllm_fa3_C", "_flashmla_C")


class _Taken(Exception):  # noqa: N818 - an answer, not an error
    """The arguments fit the schema."""


class _Stop(TorchDispatchMode):  # type: ignore[misc]  # torch is unknown to the check
    """Ends a call of a library's op where its code would begin."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if func.namespace in NAMESPACES:
            raise _Taken
        return func(*args, **(kwargs or {}))


def fit(peer: str, workload: Workload) -> dict[str, Any]:
    """``{"fits": …}``: of a library the schema, of PyTorch the shapes and dtypes that it computes; ``{"skipped": why}``.

    Raises:
        AttributeError: there is no such op.
        ValueError: what PyTorch computes has other shapes or dtypes than the op's outputs; or an op
            was never called.
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
    raise ValueError("the call reaches no op of a library")
