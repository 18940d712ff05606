# SPDX-License-Identifier: Apache-2.0
"""All-reduces over ranks that are all in this process, as in the emulation.

On real GPUs, each rank needs a process.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch

from vllm._kernels import loader, ops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRATCH = 1 << 20


@dataclass
class Ranks:
    """Handle and registered buffer of each rank."""

    handles: list[int]
    buffers: list[int]
    records: list[torch.Tensor]


@pytest.fixture
def emulator() -> ctypes.CDLL:
    return ctypes.CDLL(str(loader.loaded()["_C"]))


@pytest.fixture
def ranks() -> Iterator[Callable[..., Ranks]]:
    made: list[Ranks] = []
    memory: list[int] = []

    def shared(size: int, count: int) -> list[int]:
        found = []
        for _ in range(count):
            address, handle = ops.allocate_shared_buffer_and_handle(size)
            assert ops.open_mem_handle(handle) == address
            found.append(address)
        memory.extend(found)
        return found

    def make(count: int, *, fully_connected: bool = True, room: int = 4) -> Ranks:
        signals = shared(ops.meta_size() + SCRATCH, count)
        records = [torch.empty(64 * room, dtype=torch.uint8) for _ in range(count)]
        handles = [
            ops.init_custom_ar(signals, records[rank], rank, fully_connected)
            for rank in range(count)
        ]
        buffers = shared(SCRATCH, count)
        for handle in handles:
            ops.register_buffer(handle, buffers)
        made.append(Ranks(handles, buffers, records))
        return made[-1]

    yield make
    for group in made:
        for handle in group.handles:
            ops.dispose(handle)
    for address in memory:
        ops.free_shared_buffer(address)


def all_reduce(
    emulator: ctypes.CDLL, ranks: Ranks, inputs: list[torch.Tensor]
) -> list[torch.Tensor]:
    outputs = [torch.full_like(x, torch.nan) for x in inputs]
    emulator.vllm_emulation_begin()
    for handle, x, out, buffer in zip(ranks.handles, inputs, outputs, ranks.buffers, strict=True):
        ops.all_reduce(handle, x, out, buffer, SCRATCH)
    assert emulator.vllm_emulation_run() == len(inputs)
    return outputs


@pytest.mark.parametrize("count", [2, 4, 6, 8])
@pytest.mark.parametrize("size", [8, 4104, 100_008])
def test_sums(
    emulator: ctypes.CDLL, ranks: Any, dtype: torch.dtype, check: Any, count: int, size: int
) -> None:
    """Sizes on both sides of the threshold above which ranks sum parts.

    The ranks do not divide the sizes.
    """
    group = ranks(count)
    for _ in range(3):
        inputs = [torch.randn(size).to(dtype) for _ in range(count)]
        outputs = all_reduce(emulator, group, inputs)
        check(outputs[0], torch.stack(inputs).double().sum(0))
        assert all(torch.equal(outputs[0], other) for other in outputs[1:]), (
            "every rank has the same bits"
        )


def test_sizes_in_turn(emulator: ctypes.CDLL, ranks: Any) -> None:
    group = ranks(4)
    for size in (200_000, 4, 150_000, 40_000, 4):
        inputs = [torch.randn(size) for _ in range(4)]
        outputs = all_reduce(emulator, group, inputs)
        torch.testing.assert_close(outputs[3], torch.stack(inputs).sum(0))


def test_nothing_to_sum(ranks: Any) -> None:
    group = ranks(2)
    ops.all_reduce(group.handles[0], torch.empty(0), torch.empty(0), group.buffers[0], SCRATCH)


def test_wrong_arguments(ranks: Any) -> None:
    group = ranks(2)
    handle, buffer, x = group.handles[0], group.buffers[0], torch.ones(8)
    for arguments, message in (
        ((99, x, x.clone(), buffer, SCRATCH), "fa is 99"),
        ((handle, x, torch.ones(4), buffer, SCRATCH), "out has 4 elements, expected 8"),
        ((handle, x, x.clone().double(), buffer, SCRATCH), "out is of dtype Double"),
        ((handle, x[::2], torch.ones(4), buffer, SCRATCH), "inp has strides"),
        ((handle, torch.ones(6), torch.ones(6), buffer, SCRATCH), "multiples of 16"),
        (
            (handle, x, x.clone(), buffer, 16),
            "inp has 32 bytes, expected at most reg_buffer_sz_bytes 16",
        ),
        ((handle, x, x.clone(), 0, 0), "no registered buffer"),
    ):
        with pytest.raises(RuntimeError, match=message):
            ops.all_reduce(*arguments)
    with pytest.raises(RuntimeError, match="4 GPUs that are not fully connected"):
        ops.all_reduce(ranks(4, fully_connected=False).handles[0], x, x.clone(), buffer, SCRATCH)


def test_wrong_groups(ranks: Any) -> None:
    records = torch.empty(64, dtype=torch.uint8)
    for signals, rank, message in (
        ([1], 0, "ipc_tensors has 1"),
        ([1] * 3, 0, "has 3"),
        ([1, 0], 0, "ipc_tensors contains 0"),
        ([1, 2], 2, "rank is 2"),
    ):
        with pytest.raises(RuntimeError, match=message):
            ops.init_custom_ar(signals, records, rank, True)
    with pytest.raises(RuntimeError, match="rank_data is of dtype Float"):
        ops.init_custom_ar([1, 2], torch.empty(4), 0, True)
    group = ranks(2, room=1)
    with pytest.raises(
        RuntimeError, match="ipc_tensors has 1 elements, expected one for each of 2"
    ):
        ops.register_buffer(group.handles[0], [1])
    with pytest.raises(RuntimeError, match="rank_data has room for 1 buffers"):
        ops.register_buffer(group.handles[0], [1, 2])
    with pytest.raises(RuntimeError, match="fa is 0"):
        ops.dispose(0)


def test_graph_buffers(ranks: Any) -> None:
    group = ranks(2)
    assert ops.get_graph_buffer_ipc_meta(group.handles[0]) == ([], [])
    ops.register_graph_buffers(group.handles[0], [[], []], [[], []])
    wrong: list[tuple[list[list[int]], list[list[int]], str]] = [
        ([[]], [[], []], "expected one for each of 2 ranks"),
        ([[300], []], [[], []], "a number that is not a byte"),
        ([[0] * 64, []], [[0], []], "rank 0 has captured 1 reductions and this one 0"),
    ]
    for handles, offsets, message in wrong:
        with pytest.raises(RuntimeError, match=message):
            ops.register_graph_buffers(group.handles[0], handles, offsets)


def test_memory(ranks: Any) -> None:
    ranks(2)
    with pytest.raises(RuntimeError, match="size is 0"):
        ops.allocate_shared_buffer_and_handle(0)
    with pytest.raises(RuntimeError, match="mem_handle has shape"):
        ops.open_mem_handle(torch.empty(3, dtype=torch.uint8))
    ops.free_shared_buffer(0)
