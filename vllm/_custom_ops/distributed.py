# SPDX-License-Identifier: Apache-2.0
"""Sums over the GPUs of one machine, in a kernel that reads the others' memory.

Each rank allocates a shared buffer of :func:`meta_size` bytes and, for more than two ranks, as many
again as the largest tensor has; the ranks send one another the handles and open them. All ranks
call the same functions in the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._ops import namespace

if TYPE_CHECKING:
    import torch

_C = namespace("_C_custom_ar")


def init_custom_ar(
    ipc_tensors: list[int],
    rank_data: torch.Tensor,
    rank: int,
    fully_connected: bool,  # noqa: FBT001 - upstream's
) -> int:
    """Prepare sums over the ranks of one machine.

    Source: Thakur, Rabenseifner and Gropp, Optimization of collective communication operations in
    MPICH, 2005 (section 4.4): a scheme for small and one for larger tensors, here with reads of the
    others' memory in the place of messages.

    Args:
        ipc_tensors: the address of each rank's shared buffer in this process; 2, 4, 6 or 8 of them.
        rank_data: ``uint8``, contiguous, on this GPU: 64 bytes for each buffer that will be
            registered. It is kept by the caller.
        rank: this one's number.
        fully_connected: whether every two GPUs have a link of their own; without that only two
            ranks are served.

    Returns:
        The handle that the other functions take.
    """
    handle: int = _C.init_custom_ar(ipc_tensors, rank_data, rank, fully_connected)
    return handle


def all_reduce(
    fa: int, inp: torch.Tensor, out: torch.Tensor, reg_buffer: int, reg_buffer_sz_bytes: int
) -> None:
    """Sum over the ranks: ``out = sum_r inp_r``, in float32, in the order of ranks, so that all ranks get the same bits.

    Source: see :func:`init_custom_ar`.

    Args:
        fa: the handle.
        inp: contiguous, of a multiple of 16 bytes; its memory is registered, or the stream is
            capturing, unless ``reg_buffer`` is given.
        out: overwritten; as many elements, contiguous.
        reg_buffer: the address of this rank's registered buffer, into which ``inp`` is copied
            before; 0 for none.
        reg_buffer_sz_bytes: its size.
    """
    _C.all_reduce(fa, inp, out, reg_buffer, reg_buffer_sz_bytes)


def dispose(fa: int) -> None:
    """Forget a handle; shared buffers stay as they are.

    Source: upstream's interface.

    Args:
        fa: the handle.
    """
    _C.dispose(fa)


def meta_size() -> int:
    """Bytes that the ranks tell one another by where they are, at the begin of each shared buffer.

    Source: upstream's interface.
    """
    size: int = _C.meta_size()
    return size


def register_buffer(fa: int, ipc_tensors: list[int]) -> None:
    """Make a buffer of every rank known: what is summed lies in such.

    Source: upstream's interface.

    Args:
        fa: the handle.
        ipc_tensors: the address of each rank's buffer in this process, in the order of ranks.
    """
    _C.register_buffer(fa, ipc_tensors)


def get_graph_buffer_ipc_meta(fa: int) -> tuple[list[int], list[int]]:
    """What the other ranks need to read the tensors of captured sums.

    Source: upstream's interface.

    Args:
        fa: the handle.

    Returns:
        The bytes of handles of allocations, 64 for each sum, and the distance of each tensor from
        the begin of its allocation.
    """
    handles, offsets = _C.get_graph_buffer_ipc_meta(fa)
    return handles, offsets


def register_graph_buffers(fa: int, handles: list[list[int]], offsets: list[list[int]]) -> None:
    """Make the tensors of captured sums known, after the capture and before the graph runs.

    Source: upstream's interface.

    Args:
        fa: the handle.
        handles: of every rank, in the order of ranks, what :func:`get_graph_buffer_ipc_meta` gave
            there.
        offsets: likewise.
    """
    _C.register_graph_buffers(fa, handles, offsets)


def allocate_shared_buffer_and_handle(size: int) -> tuple[int, torch.Tensor]:
    """Memory on the current GPU that other processes can open, zeroed.

    Source: CUDA Runtime API, ``cudaIpcGetMemHandle``.

    Args:
        size: in bytes.

    Returns:
        Its address, and the handle for the others: ``uint8 [64]`` in CPU memory.
    """
    address, handle = _C.allocate_shared_buffer_and_handle(size)
    return address, handle


def open_mem_handle(mem_handle: torch.Tensor) -> int:
    """The address of another process's memory.

    Source: CUDA Runtime API, ``cudaIpcOpenMemHandle``.

    Args:
        mem_handle: what :func:`allocate_shared_buffer_and_handle` gave there.
    """
    address: int = _C.open_mem_handle(mem_handle)
    return address


def free_shared_buffer(ptr: int) -> None:
    """Free what :func:`allocate_shared_buffer_and_handle` allocated, when no other process reads it any more.

    Source: CUDA Runtime API, ``cudaFree``.

    Args:
        ptr: its address; 0 does nothing.
    """
    _C.free_shared_buffer(ptr)
