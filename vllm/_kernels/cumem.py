# SPDX-License-Identifier: Apache-2.0
"""Device memory that can sleep.

Sleeping tensors keep their addresses, lose their memory, and get their contents back later. Tensors
that are created inside :meth:`CuMemAllocator.use_memory_pool` are in memory of
``vllm.cumem_allocator``. :meth:`CuMemAllocator.sleep` copies the contents to keep to the host and
returns all memory to the device. :meth:`CuMemAllocator.wake_up` maps new memory to the same
addresses, so the tensors can be used again.

    allocator = CuMemAllocator.get_instance()
    with allocator.use_memory_pool(tag="weights"):
        model = load()
    allocator.sleep(offload_tags=("weights",))
    allocator.wake_up()

Importing this module needs neither torch nor a device. :data:`cumem_available` tells whether the
compiled part is installed.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vllm._kernels import build_info

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

#: An allocation: device, size in bytes, address on the device, and the handle. The handle is the
#: address of the driver's handle on CUDA. On ROCm, where the memory is created in chunks, it is a
#: list with the address of the driver's handle and the size in bytes of each chunk.
HandleType = tuple[int, int, int, int | list[tuple[int, int]]]


@dataclass
class AllocationData:
    """A segment of torch's pool, which contains any number of tensors.

    Attributes:
        handle: identifies the segment.
        tag: the tag of the :meth:`CuMemAllocator.use_memory_pool` that it was allocated in.
        cpu_backup_tensor: the contents while the segment sleeps, if they are kept: uint8, pinned.
        asleep: whether the segment has no memory.
    """

    handle: HandleType
    tag: str
    cpu_backup_tensor: torch.Tensor | None = None
    asleep: bool = False


def _require() -> None:
    if _why_not is not None:
        raise ImportError(
            f"vllm.cumem_allocator cannot be imported ({_why_not}).\n"
            "The CUDA and ROCm kernels include it, except for interpreters without the GIL: "
            + build_info.how_to_get("'vllm-kernels=*=cuda*' (AMD GPUs: 'vllm-kernels=*=rocm*')"),
            name="vllm.cumem_allocator",
        ) from _why_not


def create_and_map(allocation_handle: HandleType) -> None:
    """Map new memory with unspecified contents to the addresses of an allocation that has none.

    Raises:
        ImportError: the compiled part is not installed.
        RuntimeError: the device has no memory left, the allocation does not exist, or it already
            has memory. Nothing has changed.
    """
    _require()
    cumem_allocator.python_create_and_map(*allocation_handle)


def unmap_and_release(allocation_handle: HandleType) -> None:
    """Wait for the device, then release an allocation's memory; its addresses stay reserved.

    Raises:
        ImportError: the compiled part is not installed.
        RuntimeError: the device has failed, the allocation does not exist, or it has no memory.
            Nothing has changed, unless the message says that memory is lost.
    """
    _require()
    cumem_allocator.python_unmap_and_release(*allocation_handle)


def get_pluggable_allocator(
    python_malloc_fn: Callable[[HandleType], None], python_free_func: Callable[[int], HandleType]
) -> CUDAPluggableAllocator:
    """Wrap the compiled allocator as a pluggable allocator of torch.

    A process has one pair of callbacks: the last one that was set. On ROCm, this call also reads
    ``VLLM_SLEEP_MEM_CHUNK_SIZE``, the size in MiB of the chunks of new allocations (default: 256).

    Args:
        python_malloc_fn: called with every new allocation.
        python_free_func: called with the address of an allocation that ends. It returns the handle
            that ``python_malloc_fn`` got for it.

    Raises:
        ImportError: the compiled part is not installed.
        RuntimeError: the variable is malformed.
    """
    _require()
    from torch.cuda.memory import CUDAPluggableAllocator  # noqa: PLC0415 - importing this module must not import torch

    cumem_allocator.init_module(python_malloc_fn, python_free_func)
    return CUDAPluggableAllocator(cumem_allocator.__file__, "my_malloc", "my_free")


@contextlib.contextmanager
def use_memory_pool_with_allocator(
    python_malloc_fn: Callable[[HandleType], None], python_free_func: Callable[[int], HandleType]
) -> Generator[tuple[MemPool, CUDAPluggableAllocator]]:
    """Create tensors of a GPU in a new pool on the compiled allocator, inside a ``with`` block.

    This affects tensors that this thread creates on the current device.

    Yields:
        The pool and the allocator. When the last reference to the pool is gone, torch releases the
        memory that no tensor uses.

    Raises:
        ImportError: the compiled part is not installed.
        RuntimeError: see :func:`get_pluggable_allocator`.
    """
    allocator = get_pluggable_allocator(python_malloc_fn, python_free_func)
    from torch.cuda.memory import MemPool, use_mem_pool  # noqa: PLC0415

    pool = MemPool(allocator.allocator())
    with use_mem_pool(pool):
        yield pool, allocator


def _tags(argument: str, value: object) -> tuple[str, ...]:
    """Convert an argument, one tag or several, to a tuple."""
    tags = (value,) if isinstance(value, str) else value
    if not isinstance(tags, (tuple, list)) or not all(isinstance(tag, str) for tag in tags):
        raise TypeError(f"{argument} is {value!r}, expected a string or several strings")
    return tuple(tags)


def _refuse_expandable_segments() -> None:
    """Raise if torch's allocator maps memory itself; a pool's segments are then not ours alone."""
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        if re.search(r"expandable_segments\s*:\s*true", os.environ.get(name, ""), re.IGNORECASE):
            raise RuntimeError(
                f"{name} enables expandable_segments, which cannot be combined with sleeping "
                "memory: remove it"
            )


class CuMemAllocator:
    """The sleeping memory of the process: one allocator for all devices and threads.

    Get it with :meth:`get_instance`. Only one thread at a time may call the methods. They wait for
    work on the device before they take memory away. Do not start work on sleeping memory: the
    device fails, as it does for any address without memory.

    Attributes:
        pointer_to_data: address → allocation, for all existing allocations.
        current_tag: tag for new allocations.
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
        """The allocator of the process, created by the first call.

        Raises:
            ImportError: the compiled part is not installed.
            RuntimeError: torch is configured to use expandable segments.
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
        """Create tensors of a GPU in memory that can sleep, inside a ``with`` block.

        This affects tensors that this thread creates on the current device. Every use has its own
        pool. At the end of the block, torch releases the memory that no tensor uses; later,
        ``torch.cuda.empty_cache()`` does.

        Args:
            tag: identifies the memory for :meth:`sleep` and :meth:`wake_up`; default:
                :attr:`default_tag`.

        Raises:
            TypeError: the tag is not a string.
            RuntimeError: see :func:`get_pluggable_allocator`.
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
        """Return the memory of all allocations to their devices.

        Contents of allocations with one of the tags are kept on the host; other contents are lost.
        Sleeping allocations are skipped. Cached memory of torch that no tensor uses is released for
        good.

        Args:
            offload_tags: one tag or several; default: :attr:`default_tag`. An empty tuple keeps
                nothing.

        Raises:
            TypeError: an argument is not a tag.
            RuntimeError: the call is inside :meth:`use_memory_pool`, where torch might use sleeping
                memory for new tensors; or the host has no memory for a copy; or the device has
                failed. Allocations that already sleep stay asleep, the others are unchanged.
        """
        if self._open_pools:
            raise RuntimeError(
                "sleep() inside use_memory_pool(): leave the pool first, or torch would use "
                "sleeping memory for new tensors"
            )
        kept = _tags("offload_tags", self.default_tag if offload_tags is None else offload_tags)
        import torch  # noqa: PLC0415 - importing this module must not import torch

        # First, so that memory that no tensor uses is not copied.
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
        """Map memory to the addresses of sleeping allocations and restore contents that were kept.

        Other contents are unspecified.

        Args:
            tags: one tag or several, whose allocations wake up; default: all.

        Raises:
            TypeError: an argument is not a tag.
            RuntimeError: a device does not have enough memory. Allocations that are already awake
                can be used; the others stay asleep and keep their contents. Free memory and call
                again.
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
        """Size in bytes of all allocations, including sleeping ones, which occupy no memory now."""
        return sum(data.handle[1] for data in self.pointer_to_data.values())
