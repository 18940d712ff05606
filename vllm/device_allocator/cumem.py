# SPDX-License-Identifier: Apache-2.0
"""Device memory that can sleep: tensors lose their memory for a while, keep their addresses, and get their contents back.

Tensors that are created inside :meth:`CuMemAllocator.use_memory_pool` lie in memory of
``vllm.cumem_allocator``. :meth:`CuMemAllocator.sleep` copies what is worth keeping to the host and
gives all of it back to the device; :meth:`CuMemAllocator.wake_up` puts new memory behind the same
addresses, so that tensors go on as before.

    allocator = CuMemAllocator.get_instance()
    with allocator.use_memory_pool(tag="weights"):
        model = load()
    allocator.sleep(offload_tags=("weights",))
    allocator.wake_up()

Importing this module needs neither torch nor a device; :data:`cumem_available` says whether the
compiled part is installed.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vllm import build_info

try:
    from vllm import cumem_allocator
except ImportError as _error:
    cumem_available = False
    _why_not: ImportError | None = _error
else:
    cumem_available = True
    _why_not = None

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import torch
    from torch.cuda.memory import CUDAPluggableAllocator, MemPool

__all__ = [
    "AllocationData",
    "CuMemAllocator",
    "HandleType",
    "create_and_map",
    "cumem_available",
    "get_pluggable_allocator",
    "unmap_and_release",
    "use_memory_pool_with_allocator",
]

#: An allocation: device, bytes, address on the device, address of the driver's handle.
HandleType = tuple[int, int, int, int]


@dataclass
class AllocationData:
    """An allocation of torch's pool: one of its segments, which holds any number of tensors.

    Attributes:
        handle: names it.
        tag: of the :meth:`CuMemAllocator.use_memory_pool` that it was made in.
        cpu_backup_tensor: its bytes while it sleeps, if they were kept: uint8, pinned.
        asleep: it has no memory.
    """

    handle: HandleType
    tag: str
    cpu_backup_tensor: torch.Tensor | None = None
    asleep: bool = False


def _require() -> None:
    if _why_not is not None:
        raise ImportError(
            f"vllm.cumem_allocator cannot be imported ({_why_not}).\n"
            "It comes with the kernels for CUDA, and not for interpreters without the GIL: "
            + build_info.how_to_get("'vllm-kernels=*=cuda*'"),
            name="vllm.cumem_allocator",
        ) from _why_not


def create_and_map(allocation_handle: HandleType) -> None:
    """Put new memory, of unspecified contents, behind the addresses of an allocation that has none.

    Raises:
        ImportError: the compiled part is not installed.
        RuntimeError: the device has no memory left, or there is no such allocation, or it has
            memory. Nothing has changed.
    """
    _require()
    cumem_allocator.python_create_and_map(*allocation_handle)


def unmap_and_release(allocation_handle: HandleType) -> None:
    """Wait for the device, then give the memory of an allocation back; its addresses stay reserved.

    Raises:
        ImportError: the compiled part is not installed.
        RuntimeError: the device has failed, or there is no such allocation, or it has no memory.
            Nothing has changed.
    """
    _require()
    cumem_allocator.python_unmap_and_release(*allocation_handle)


def get_pluggable_allocator(
    python_malloc_fn: Callable[[HandleType], None], python_free_func: Callable[[int], HandleType]
) -> CUDAPluggableAllocator:
    """The compiled allocator as torch takes one.

    The process has one pair of callbacks: the last that was given.

    Args:
        python_malloc_fn: called with every new allocation.
        python_free_func: called with the address of an allocation that ends; returns what
            ``python_malloc_fn`` was told of it.

    Raises:
        ImportError: the compiled part is not installed.
    """
    _require()
    from torch.cuda.memory import CUDAPluggableAllocator  # noqa: PLC0415 - torch is needed from here on, not before

    cumem_allocator.init_module(python_malloc_fn, python_free_func)
    return CUDAPluggableAllocator(cumem_allocator.__file__, "my_malloc", "my_free")


@contextlib.contextmanager
def use_memory_pool_with_allocator(
    python_malloc_fn: Callable[[HandleType], None], python_free_func: Callable[[int], HandleType]
) -> Generator[tuple[MemPool, CUDAPluggableAllocator]]:
    """Inside, CUDA tensors that this thread creates on the current device lie in a pool of their own, on the compiled allocator.

    Yields:
        the pool and the allocator. When nobody holds the pool any longer, torch gives back what no
        tensor uses.

    Raises:
        ImportError: the compiled part is not installed.
    """
    allocator = get_pluggable_allocator(python_malloc_fn, python_free_func)
    from torch.cuda.memory import MemPool, use_mem_pool  # noqa: PLC0415

    pool = MemPool(allocator.allocator())
    with use_mem_pool(pool):
        yield pool, allocator


def _tags(argument: str, value: object) -> tuple[str, ...]:
    """The tags of an argument that is one or several."""
    tags = (value,) if isinstance(value, str) else value
    if not isinstance(tags, (tuple, list)) or not all(isinstance(tag, str) for tag in tags):
        raise TypeError(f"{argument} is {value!r}, expected a string or several of them")
    return tuple(tags)


def _refuse_expandable_segments() -> None:
    """Raise where torch's allocator is told to map memory itself: a pool's segments then are not ours alone."""
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        if re.search(r"expandable_segments\s*:\s*true", os.environ.get(name, ""), re.IGNORECASE):
            raise RuntimeError(
                f"{name} asks for expandable_segments, which sleeping memory does not work with: "
                "remove it"
            )


class CuMemAllocator:
    """The process's sleeping memory.

    It is one for all devices and threads; get it by :meth:`get_instance`.

    The methods are for one thread at a time. Work that the device has been given is waited for
    before memory goes; nobody may give it work on sleeping memory: the device then fails, as it
    does on any address without memory.

    Attributes:
        pointer_to_data: address → allocation, for all that exist.
        current_tag: tag of allocations that are made now.
    """

    instance: ClassVar[CuMemAllocator | None] = None
    default_tag: ClassVar[str] = "default"

    def __init__(self) -> None:
        _require()
        _refuse_expandable_segments()
        self.pointer_to_data: dict[int, AllocationData] = {}
        self.current_tag = self.default_tag
        self._open_pools = 0

    @staticmethod
    def get_instance() -> CuMemAllocator:
        """The one allocator of the process, made by the first call.

        Raises:
            ImportError: the compiled part is not installed.
            RuntimeError: torch is told to use expandable segments.
        """
        if CuMemAllocator.instance is None:
            CuMemAllocator.instance = CuMemAllocator()
        return CuMemAllocator.instance

    def _python_malloc_callback(self, allocation_handle: HandleType) -> None:
        self.pointer_to_data[allocation_handle[2]] = AllocationData(
            allocation_handle, self.current_tag
        )

    def _python_free_callback(self, ptr: int) -> HandleType:
        return self.pointer_to_data.pop(ptr).handle

    @contextlib.contextmanager
    def use_memory_pool(self, tag: str | None = None) -> Generator[None]:
        """Inside, CUDA tensors that this thread creates on the current device lie in memory that can sleep.

        Every use is a pool of its own. At its end, torch gives back what no tensor uses; later it
        does so in ``torch.cuda.empty_cache()``.

        Args:
            tag: names the memory to :meth:`sleep` and :meth:`wake_up`; default:
                :attr:`default_tag`.

        Raises:
            TypeError: the tag is no string.
        """
        if tag is None:
            tag = self.default_tag
        if not isinstance(tag, str):
            raise TypeError(f"tag is {tag!r}, expected a string")
        before, self.current_tag = self.current_tag, tag
        self._open_pools += 1
        try:
            with use_memory_pool_with_allocator(
                self._python_malloc_callback, self._python_free_callback
            ):
                yield
        finally:
            self._open_pools -= 1
            self.current_tag = before

    def sleep(self, offload_tags: tuple[str, ...] | str | None = None) -> None:
        """Give the memory of all allocations back to their devices; contents with one of the tags are kept on the host, others are lost.

        What sleeps already is left as it is. Memory that torch has cached and no tensor uses is
        given back for good.

        Args:
            offload_tags: one tag or several; default: :attr:`default_tag`. An empty tuple keeps
                nothing.

        Raises:
            TypeError: an argument that is no tag.
            RuntimeError: called inside :meth:`use_memory_pool`, where torch might hand out sleeping
                memory; or the host has no memory for a copy, or the device has failed. What sleeps
                by then sleeps, the rest is as it was.
        """
        if self._open_pools:
            raise RuntimeError(
                "sleep() inside use_memory_pool(): leave the pool first, torch would hand out "
                "memory that sleeps"
            )
        kept = _tags("offload_tags", self.default_tag if offload_tags is None else offload_tags)
        import torch  # noqa: PLC0415 - as above

        # First, so that nothing is copied which no tensor uses.
        gc.collect()
        torch.cuda.empty_cache()
        for data in list(self.pointer_to_data.values()):
            if data.asleep:
                continue
            backup = None
            if data.tag in kept:
                backup = torch.empty(
                    data.handle[1], dtype=torch.uint8, device="cpu", pin_memory=True
                )
                cumem_allocator.copy_to_host(*data.handle, backup.data_ptr())
            unmap_and_release(data.handle)
            data.cpu_backup_tensor, data.asleep = backup, True

    def wake_up(self, tags: list[str] | str | None = None) -> None:
        """Put memory behind the addresses of what sleeps, and bring back the contents that were kept; others are unspecified.

        Args:
            tags: one tag or several, whose allocations wake up; default: all.

        Raises:
            TypeError: an argument that is no tag.
            RuntimeError: a device has not enough memory. What is awake by then can be used, the
                rest sleeps on with its contents kept: free memory and call again.
        """
        wanted = None if tags is None else _tags("tags", tags)
        for data in list(self.pointer_to_data.values()):
            if not data.asleep or (wanted is not None and data.tag not in wanted):
                continue
            create_and_map(data.handle)
            if data.cpu_backup_tensor is not None:
                try:
                    cumem_allocator.copy_to_device(*data.handle, data.cpu_backup_tensor.data_ptr())
                except BaseException:
                    unmap_and_release(data.handle)
                    raise
            data.cpu_backup_tensor, data.asleep = None, False

    def get_current_usage(self) -> int:
        """Bytes of all allocations, with those that sleep and need none of them at the moment."""
        return sum(data.handle[1] for data in self.pointer_to_data.values())
