# SPDX-License-Identifier: Apache-2.0
"""Fake implementations: what an op does to shapes and dtypes, for ``torch.compile``, ``torch.export`` and ``opcheck``.

Ops that write into their arguments and return nothing have nothing to compute on fake tensors: their schema says it all, so the one
implementation here serves every such op of a library, those of later releases too. Without it torch would run the kernel itself, on zeros.
Shapes are checked by the kernels alone; a second copy of those checks here would put guards on symbolic shapes and could disagree with the
first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable


def _writes_in_place(*_args: object, **_kwargs: object) -> None:
    """The fake of an op whose whole effect is on the data of its arguments."""


def _only_mutates(schema: torch.FunctionSchema) -> bool:
    written = any(argument.alias_info is not None and argument.alias_info.is_write for argument in schema.arguments)
    return written and not schema.returns


def register(namespaces: Iterable[str]) -> tuple[str, ...]:
    """Register fakes for every op of ``namespaces`` that only mutates its arguments and has none.

    Returns:
        The qualified names of the ops that got one, sorted.
    """
    wanted = set(namespaces)
    done = []
    for name in sorted(torch._C._dispatch_get_all_op_names()):  # noqa: SLF001 - torch lists its ops nowhere else
        space, _, rest = name.partition("::")
        # The Meta key is where torch looks; a library, or an earlier import of this module, may have filled it.
        if space not in wanted or torch._C._dispatch_has_kernel_for_dispatch_key(name, "Meta"):  # noqa: SLF001
            continue
        op, _, overload = rest.partition(".")
        target = getattr(getattr(getattr(torch.ops, space), op), overload or "default")
        if _only_mutates(target._schema):  # noqa: SLF001 - the schema has no public accessor
            torch.library.register_fake(target, _writes_in_place)
            done.append(name)
    return tuple(done)
