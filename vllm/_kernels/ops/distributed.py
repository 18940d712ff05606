# SPDX-License-Identifier: Apache-2.0
"""All-reduce over the GPUs of one machine, in a kernel that reads the other GPUs' memory.

Each rank allocates a shared buffer of :func:`meta_size` bytes. With more than two ranks, the buffer
also needs as many bytes as the largest tensor has. The ranks exchange the handles of their buffers
and open them. All ranks call the same functions in the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace

if TYPE_CHECKING:
    import torch

_C = namespace("_C_custom_ar")


def init_custom_ar(
    ipc_tensors: list[int],
    rank_data: torch.Tensor,
    rank: int,
    fully_connected: bool,  # noqa: FBT001 - upstream's
) -> int:
    """Prepare all-reduces over the ranks of one machine.

    Source: Thakur, Rabenseifner and Gropp, Optimization of collective communication operations in
        MPICH, 2005 (section 4.4): one scheme for small tensors and one for larger ones, here with
        reads of the other ranks' memory instead of messages.

    Args:
        ipc_tensors: the address of each rank's shared buffer in this process; 2, 4, 6 or 8 ranks.
        rank_data: ``uint8``, contiguous, on this GPU: 64 bytes for each buffer that will be
            registered. The caller must keep it alive.
        rank: number of this rank.
        fully_connected: whether every pair of GPUs has a direct link. Otherwise only two ranks are
            supported.

    Returns:
        The handle to pass to the other functions.
    """
    handle: int = _C.init_custom_ar(ipc_tensors, rank_data, rank, fully_connected)
    return handle


def all_reduce(
    fa: int, inp: torch.Tensor, out: torch.Tensor, reg_buffer: int, reg_buffer_sz_bytes: int
) -> None:
    """Sum over the ranks: ``out = sum_r inp_r``.

    The sum is computed in float32 in the order of ranks, so all ranks get the same bits.

    Source: see :func:`init_custom_ar`.

    Args:
        fa: the handle.
        inp: contiguous; its size is a multiple of 16 bytes. Unless ``reg_buffer`` is given, its
            memory must be registered or the stream must be capturing.
        out: overwritten; contiguous, as many elements as ``inp``.
        reg_buffer: address of this rank's registered buffer, into which ``inp`` is copied first; 0
            for none.
        reg_buffer_sz_bytes: size of that buffer.
    """
    _C.all_reduce(fa, inp, out, reg_buffer, reg_buffer_sz_bytes)


def dispose(fa: int) -> None:
    """Release a handle; the shared buffers are not freed.

    Source: upstream's interface.

    Args:
        fa: the handle.
    """
    _C.dispose(fa)


def meta_size() -> int:
    """Bytes at the beginning of each shared buffer that the ranks use to synchronise.

    Source: upstream's interface.
    """
    size: int = _C.meta_size()
    return size


def register_buffer(fa: int, ipc_tensors: list[int]) -> None:
    """Register a buffer of every rank; tensors to sum must be in registered buffers.

    Source: upstream's interface.

    Args:
        fa: the handle.
        ipc_tensors: the address of each rank's buffer in this process, in the order of ranks.
    """
    _C.register_buffer(fa, ipc_tensors)


def get_graph_buffer_ipc_meta(fa: int) -> tuple[list[int], list[int]]:
    """Get the data that other ranks need to read the tensors of captured sums.

    Source: upstream's interface.

    Args:
        fa: the handle.

    Returns:
        The bytes of the allocations' handles, 64 for each sum, and the offset of each tensor within
        its allocation.
    """
    handles, offsets = _C.get_graph_buffer_ipc_meta(fa)
    return handles, offsets


def register_graph_buffers(fa: int, handles: list[list[int]], offsets: list[list[int]]) -> None:
    """Register the tensors of captured sums, after the capture and before the graph runs.

    Source: upstream's interface.

    Args:
        fa: the handle.
        handles: the first result of :func:`get_graph_buffer_ipc_meta` of every rank, in the order
            of ranks.
        offsets: the second result of every rank.
    """
    _C.register_graph_buffers(fa, handles, offsets)


def allocate_shared_buffer_and_handle(size: int) -> tuple[int, torch.Tensor]:
    """Allocate zeroed memory on the current GPU that other processes can open.

    Source: CUDA Runtime API, ``cudaIpcGetMemHandle``.

    Args:
        size: in bytes.

    Returns:
        The address, and the handle for other processes: ``uint8 [64]`` in CPU memory.
    """
    address, handle = _C.allocate_shared_buffer_and_handle(size)
    return address, handle


def open_mem_handle(mem_handle: torch.Tensor) -> int:
    """Open another process's memory and return its address.

    Source: CUDA Runtime API, ``cudaIpcOpenMemHandle``.

    Args:
        mem_handle: the handle that :func:`allocate_shared_buffer_and_handle` returned there.
    """
    address: int = _C.open_mem_handle(mem_handle)
    return address


def free_shared_buffer(ptr: int) -> None:
    """Free memory from :func:`allocate_shared_buffer_and_handle`.

    No other process may still read it.

    Source: CUDA Runtime API, ``cudaFree``.

    Args:
        ptr: address of the memory; 0 does nothing.
    """
    _C.free_shared_buffer(ptr)
