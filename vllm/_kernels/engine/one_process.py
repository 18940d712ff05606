# SPDX-License-Identifier: Apache-2.0
"""Lets the engine do in its own process what it would start others for.

A worker: on CPUs, upstream starts a process for each worker, also for a single one. While that
process computes, the engine's process asks for its result in a loop, which occupies a core.
Upstream therefore lets the worker compute on one core less. A worker in the engine's own process
needs neither the loop nor the core, and the engine starts one process less.

Upstream's reason for the process is that threads are bound to cores by variables that a process
reads when it starts. The engine's process is started, too, so the number of threads can be given to
it in the same way. On one NUMA node, nothing has to be bound.

The class of a model: upstream reads its properties in another process, because importing a model
may initialise a GPU. On a CPU, that only imports torch and the engine once more. Upstream keeps the
result in the user's cache, so this concerns the first start of each kind of model.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TypeVar

    _T = TypeVar("_T")

#: Machines with more cores leave one to the processes that serve requests.
FEW_CORES = 4


class Cpu(NamedTuple):
    """A CPU that this process may use: its core and its NUMA node."""

    core: int
    node: int


def threads(cpus: Iterable[Cpu], limit: int, environ: Mapping[str, str]) -> int | None:
    """How many threads a worker in the engine's process computes with.

    Args:
        cpus: the CPUs that this process may use.
        limit: CPUs that a control group allows.
        environ: the variables.

    Returns:
        None if a process of its own fits better: on several NUMA nodes, or if the caller binds
        threads. 0 leaves the number to OpenMP.
    """
    found = list(cpus)
    binding = environ.get("VLLM_CPU_OMP_THREADS_BIND") or "auto"
    if binding not in ("auto", "nobind") or len({cpu.node for cpu in found}) != 1:
        return None
    if binding == "nobind" or environ.get("OMP_NUM_THREADS"):
        return 0
    cores = min(len({cpu.core for cpu in found}), limit)
    asked = environ.get("VLLM_CPU_NUM_OF_RESERVED_CPU", "")
    reserved = int(asked) if asked.isascii() and asked.isdecimal() else int(cores > FEW_CORES)
    return max(1, cores - reserved)


def use(parallel: Any, before: object, cpus: Iterable[Cpu], limit: int) -> None:
    """Let the engine's process compute, if its single worker got a process by default.

    Args:
        parallel: the engine's configuration of workers, with which upstream is done.
        before: its kind of executor before upstream chose.
        cpus: as for :func:`threads`.
        limit: as for :func:`threads`.
    """
    if before != "uni" or parallel.distributed_executor_backend != "mp":
        return
    count = threads(cpus, limit, os.environ)
    if count is None:
        return
    parallel.distributed_executor_backend = "uni"
    if count:
        os.environ["OMP_NUM_THREADS"] = str(count)


def _call(function: Callable[[], _T]) -> _T:
    return function()


def inspect_here() -> None:
    """Let the engine read the properties of models' classes in this process."""
    from vllm.model_executor.models import registry  # noqa: PLC0415 - imports torch and the engine

    registry._run_in_subprocess = _call  # noqa: SLF001 - no other hook
