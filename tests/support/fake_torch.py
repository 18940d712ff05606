# SPDX-License-Identifier: Apache-2.0
"""The part of torch that sleeping memory uses, for interpreters without torch.

It has pools over a pluggable allocator, and host tensors. As in torch, a pool caches the segments
of deleted tensors, and frees them when it is deleted, or later in ``empty_cache()``.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Sizes of the pinned host tensors. Set `refuse` to make the next one fail.
pinned: list[int] = []
refuse = False
_current: MemPool | None = None
_orphans: list[_Segments] = []


class OutOfMemoryError(RuntimeError):
    """Imitates torch.cuda.OutOfMemoryError."""


class CUDAPluggableAllocator:
    """Calls the two functions of a library, without the GIL."""

    def __init__(self, path: str, alloc: str, free: str) -> None:
        library = ctypes.CDLL(path)
        self.alloc, self.free = library[alloc], library[free]
        self.alloc.argtypes, self.alloc.restype = (
            [ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p],
            ctypes.c_void_p,
        )
        self.free.argtypes, self.free.restype = (
            [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p],
            None,
        )

    def allocator(self) -> CUDAPluggableAllocator:
        return self


class _Segments:
    """The unused segments of one pool, as (address, size), and its allocator.

    They outlive the pool.
    """

    def __init__(self, allocator: CUDAPluggableAllocator) -> None:
        self.allocator, self.used = allocator, 0
        self.cached: list[tuple[int, int]] = []

    def release(self) -> None:
        for address, size in self.cached:
            self.allocator.free(address, size, 0, None)
        self.cached.clear()


class MemPool:
    """As torch's: deletion frees unused segments, and leaves the others to empty_cache()."""

    def __init__(self, allocator: CUDAPluggableAllocator) -> None:
        self.segments = _Segments(allocator)

    def __del__(self) -> None:
        self.segments.release()
        _orphans.append(self.segments)


@contextlib.contextmanager
def use_mem_pool(pool: MemPool) -> Iterator[None]:
    global _current  # noqa: PLW0603 - as in torch, one pool is current
    before, _current = _current, pool
    try:
        yield
    finally:
        _current = before


def empty_cache() -> None:
    for segments in _orphans:
        segments.release()


class CudaTensor:
    """A tensor that has a separate segment in the current pool."""

    def __init__(self, size: int) -> None:
        assert _current is not None
        self.segments = _current.segments
        fitting = [found for found in self.segments.cached if found[1] == size]
        if fitting:
            self.segments.cached.remove(fitting[0])
        self.address = fitting[0][0] if fitting else self.segments.allocator.alloc(size, 0, None)
        if not self.address:
            raise OutOfMemoryError("CUDA out of memory")
        self.size = size

    def __del__(self) -> None:
        if getattr(self, "size", None) is not None:
            self.segments.cached.append((self.address, self.size))


class HostTensor:
    """A tensor in host memory."""

    def __init__(self, size: int) -> None:
        self.buffer = ctypes.create_string_buffer(size)

    def data_ptr(self) -> int:
        return ctypes.addressof(self.buffer)


def empty(size: int, *, dtype: str, device: str, pin_memory: bool) -> HostTensor:
    global refuse  # noqa: PLW0603
    assert (dtype, device, pin_memory) == ("uint8", "cpu", True)
    if refuse:
        refuse = False
        raise RuntimeError("the host cannot pin that much")
    pinned.append(size)
    return HostTensor(size)


def install() -> None:
    """Replace torch in this interpreter."""
    torch: Any = types.ModuleType("torch")
    torch.cuda = types.ModuleType("torch.cuda")
    torch.cuda.memory = types.ModuleType("torch.cuda.memory")
    torch.empty, torch.uint8, torch.cuda.empty_cache = empty, "uint8", empty_cache
    for name in ("CUDAPluggableAllocator", "MemPool", "use_mem_pool"):
        setattr(torch.cuda.memory, name, globals()[name])
    sys.modules |= {
        "torch": torch,
        "torch.cuda": torch.cuda,
        "torch.cuda.memory": torch.cuda.memory,
    }
