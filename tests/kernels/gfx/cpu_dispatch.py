# SPDX-License-Identifier: Apache-2.0
"""A plugin of pytest: ops of our libraries that are for GPUs take tensors in CPU memory.

It registers, for each op with an implementation for CUDA (torch's name for AMD's GPUs as well), one
for the CPU that calls it. ``gfx_torch.cc`` lets the implementation see a tensor on a GPU.
"""

from __future__ import annotations

from typing import Any

import torch

#: Namespaces of our ops.
NAMESPACES = ("_C", "_C_cache_ops", "_C_custom_ar", "_C_cuda_utils", "_moe_C", "_rocm_C")
#: Registrations last as long as these objects.
LIBRARIES: list[Any] = []


def forward(op: Any) -> Any:
    """Return a function that calls an op's implementation for GPUs."""
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)

    def call(*arguments: Any, **named: Any) -> Any:
        return op.redispatch(keys, *arguments, **named)

    return call


def register() -> None:
    """Register the CPU implementations. The libraries are loaded."""
    for namespace in NAMESPACES:
        library = torch.library.Library(namespace, "IMPL")
        LIBRARIES.append(library)
        prefix = f"{namespace}::"
        for name in torch._C._dispatch_get_all_op_names():
            if not name.startswith(prefix):
                continue
            on_gpu, on_cpu = (
                torch._C._dispatch_has_kernel_for_dispatch_key(name, key) for key in ("CUDA", "CPU")
            )
            if on_gpu and not on_cpu:
                base, _, overload = name.removeprefix(prefix).partition(".")
                op = getattr(getattr(getattr(torch.ops, namespace), base), overload or "default")
                library.impl(name.removeprefix(prefix), forward(op), "CPU")


def pytest_sessionstart() -> None:
    """Load the libraries and register."""
    from vllm._kernels import loader

    loader.load()
    register()
