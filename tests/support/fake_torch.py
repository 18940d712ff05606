# SPDX-License-Identifier: Apache-2.0
"""The part of torch that sleeping memory uses, for interpreters without torch: pools over a pluggable allocator, and host tensors.

As torch does, a pool caches the segments of tensors that are gone; what it caches is freed with the
pool, or later by ``empty_cache()``.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Host tensors that were pinned; set `refuse` to make the next one fail.
pinned: list[int] = []
refuse = False
_current: MemPool | None = None
_orphans: list[_Segments] = []


class OutOfMemoryError(RuntimeError):
    """As torch.cuda.OutOfMemoryError."""


class CUDAPluggableAllocator:
    """Calls the two functions of a library, in its threads' way: without the GIL."""

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
    """Segments of one pool: size → addresses that no tensor uses, and how many are in use.

    It outlives the pool.
    """

    def __init__(self, allocator: CUDAPluggableAllocator) -> None:
        self.allocator, self.used = allocator, 0
        self.cached: list[tuple[int, int]] = []

    def release(self) -> None:
        for address, size in self.cached:
            self.allocator.free(address, size, 0, None)
        self.cached.clear()


class MemPool:
    """As torch's: its end frees what no tensor uses and leaves the rest to empty_cache()."""

    def __init__(self, allocator: CUDAPluggableAllocator) -> None:
        self.segments = _Segments(allocator)

    def __del__(self) -> None:
        self.segments.release()
        _orphans.append(self.segments)


@contextlib.contextmanager
def use_mem_pool(pool: MemPool) -> Iterator[None]:
    global _current  # noqa: PLW0603 - as torch has it, one pool that is used now
    before, _current = _current, pool
    try:
        yield
    finally:
        _current = before


def empty_cache() -> None:
    for segments in _orphans:
        segments.release()


class CudaTensor:
    """A segment of its own in the pool that is used now."""

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
    """Bytes of the host."""

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
    """Take the place of torch in this interpreter."""
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
