# SPDX-License-Identifier: Apache-2.0
"""What a child process runs for a case: seeded inputs, the op, and PyTorch's equivalent.

Builders are registered by op.
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
#: Inputs with more elements repeat a random block: times do not depend on the values, and
#: generating random numbers takes seconds.
_POOL = 1 << 21


@dataclass
class Workload:
    """A case with its inputs.

    Attributes:
        bind: prepares what the op needs (packed weights, filled caches) and returns the call to
            time.
        torch: the same computation in PyTorch: called with ``args``, it returns the results in the
            order of ``outputs``.
        args: arguments of ``torch``.
        outputs: tensors that the op writes; empty if it returns its results.
        reads, writes: minimal number of bytes to move between memory and cores.
        flops: floating-point operations, if they can be the limit.
        arithmetic: dtype of the multiplications; empty means the case's.
        no_torch: why PyTorch has no equivalent; empty if ``torch`` computes the same.
        no_compile: why compiling ``torch`` has no benefit; empty if it is compiled.
        unchecked: why results of two implementations differ; empty if they are compared.
        slack: factor of the usual tolerance, if intermediate results are rounded.
        cold: whether the data would not be in a cache in a running model: weights, and caches of
            the size of other layers'.
        keep: objects that must live as long as the workload.
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
    """Normally distributed numbers from torch's seeded generator; large tensors repeat a block."""
    count = 1
    for size in shape:
        count *= size
    if count <= _POOL:
        return (torch.randn(shape) * scale).to(dtype)
    # The block has an odd length, so repetitions never align with rows.
    block = (torch.randn(_POOL - 1) * scale).to(dtype)
    return block.repeat(-(-count // block.numel()))[:count].view(shape)


def size(*tensors: torch.Tensor | None) -> int:
    """Bytes of tensors."""
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


def op(name: str, namespace: str = "_C") -> Any:
    """An op of the loaded libraries; a name may include its namespace, before a dot.

    Raises:
        AttributeError: there is no such op.
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
    """A workload that calls the op with ``arguments``.

    Unless given, reads and writes are computed from ``args`` and ``outputs``.
    """
    name, namespace = call

    def bind() -> Call:
        function = op(name, namespace)
        return lambda: function(*arguments)

    more.setdefault("reads", size(*(a for a in args if isinstance(a, torch.Tensor))))
    more.setdefault("writes", size(*outputs))
    return Workload(bind, torch_, args, outputs, **more)
