# SPDX-License-Identifier: Apache-2.0
"""What a child process runs for one case: seeded inputs, the op, the same in PyTorch.

Builders register themselves by op.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    Call = Callable[[], object]

FP8 = torch.float8_e4m3fn
#: Beyond this many elements inputs repeat a random block: time does not depend on the values, and
#: random numbers cost seconds.
_POOL = 1 << 21


@dataclass
class Workload:
    """One case on inputs of its own.

    Attributes:
        bind: sets up what the op needs beforehand (packed weights, filled caches) and returns the
            call that is timed.
        torch: the same computation in PyTorch: called with ``args`` it returns its results, in the
            order of ``outputs``.
        args: inputs of ``torch``.
        outputs: what the op writes; empty where it returns its results.
        reads, writes: bytes that must move between memory and cores at least.
        flops: floating-point operations, where these can be the limit.
        arithmetic: the dtype that is multiplied; empty: the case's.
        no_torch: why PyTorch has nothing to compare with; empty: ``torch`` computes the same.
        no_compile: why there is nothing to gain from compiling ``torch``; empty: it is compiled.
        unchecked: why results of two implementations differ; empty: they are compared.
        slack: how many times the usual tolerance results may differ, where intermediate results are
            rounded.
        cold: the data would not be in a cache in a running model: weights, and caches of other
            layers' size.
    """

    bind: Callable[[], Call]
    torch: Callable[..., Sequence[Tensor]]
    args: tuple[Any, ...]
    outputs: tuple[Tensor, ...] = ()
    reads: int = 0
    writes: int = 0
    flops: float = 0.0
    arithmetic: str = ""
    no_torch: str = ""
    no_compile: str = ""
    unchecked: str = ""
    cold: bool = False
    slack: float = 1.0
    keep: list[Any] = field(default_factory=list)


BUILDERS: dict[str, Callable[[str, Any, torch.dtype], Workload]] = {}


def builds(*ops: str) -> Callable[[Any], Any]:
    """Register a builder ``(op, case, dtype) -> Workload`` for ops."""

    def register(function: Any) -> Any:
        BUILDERS.update(dict.fromkeys(ops, function))
        return function

    return register


def rand(*shape: int, dtype: torch.dtype, scale: float = 1.0) -> torch.Tensor:
    """Normal numbers from torch's seeded generator, repeated where there are very many."""
    count = 1
    for size in shape:
        count *= size
    if count <= _POOL:
        return (torch.randn(shape) * scale).to(dtype)
    # A block of an odd length: the repetition falls together with no row.
    block = (torch.randn(_POOL - 1) * scale).to(dtype)
    return block.repeat(-(-count // block.numel()))[:count].view(shape)


def size(*tensors: torch.Tensor | None) -> int:
    """Bytes of tensors."""
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


def op(name: str, namespace: str = "_C") -> Any:
    """An op of the loaded libraries; a name with a namespace of its own before a dot keeps to that.

    Raises:
        AttributeError: it has no such op.
    """
    own, _, last = name.rpartition(".")
    return getattr(getattr(torch.ops, own or namespace), last)


def simple(
    call: tuple[str, str],
    arguments: tuple[Any, ...],
    torch_: Any,
    args: tuple[Any, ...],
    outputs: tuple[torch.Tensor, ...],
    **more: Any,
) -> Workload:
    """A workload whose call is the op on ``arguments``; reads and writes follow from ``args`` and ``outputs`` unless given."""
    name, namespace = call

    def bind() -> Call:
        function = op(name, namespace)
        return lambda: function(*arguments)

    more.setdefault("reads", size(*(a for a in args if isinstance(a, torch.Tensor))))
    more.setdefault("writes", size(*outputs))
    return Workload(bind, torch_, args, outputs, **more)
