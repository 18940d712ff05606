# SPDX-License-Identifier: Apache-2.0
"""Memory that sleeps, tested on a device with torch's own pools."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
import torch

from vllm._kernels import cumem

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
    pytest.mark.skipif(not cumem.cumem_available, reason="vllm.cumem_allocator is not installed"),
]
SIZE = 256 << 20
#: Memory that a driver may keep between two measurements.
SLACK = 32 << 20


@pytest.fixture
def allocator() -> Iterator[cumem.CuMemAllocator]:
    found = cumem.CuMemAllocator.get_instance()
    yield found
    gc.collect()
    torch.cuda.empty_cache()
    assert found.pointer_to_data == {}, "every allocation of the test has ended"


def free_bytes() -> int:
    torch.cuda.synchronize()
    return int(torch.cuda.mem_get_info()[0])


def test_contents_sleep_on_the_host_and_the_device_has_its_memory_back(
    allocator: cumem.CuMemAllocator,
) -> None:
    torch.cuda.empty_cache()
    before = free_bytes()
    with allocator.use_memory_pool("weights"):
        weights = torch.arange(SIZE // 4, dtype=torch.int32, device="cuda")
    with allocator.use_memory_pool("kv_cache"):
        cache = torch.ones(SIZE, dtype=torch.uint8, device="cuda")
    addresses, want = (weights.data_ptr(), cache.data_ptr()), weights.cpu()
    assert before - free_bytes() >= 2 * SIZE
    allocator.sleep("weights")
    assert abs(before - free_bytes()) <= SLACK
    allocator.wake_up(["weights"])
    assert torch.equal(weights.cpu(), want)
    assert SIZE <= before - free_bytes() <= SIZE + SLACK
    allocator.wake_up()
    cache.zero_()
    assert (weights.data_ptr(), cache.data_ptr()) == addresses
    assert cache.sum().item() == 0
    assert torch.equal(weights.cpu(), want)


def test_work_that_is_queued_is_waited_for(allocator: cumem.CuMemAllocator) -> None:
    with allocator.use_memory_pool():
        value = torch.zeros(SIZE // 4, dtype=torch.int32, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(50):
            value += 1
        allocator.sleep()
    allocator.wake_up()
    assert (value.min().item(), value.max().item()) == (50, 50)


def test_a_captured_graph_runs_after_a_sleep(allocator: cumem.CuMemAllocator) -> None:
    with allocator.use_memory_pool():
        value = torch.ones(1 << 20, device="cuda")
    graph = torch.cuda.CUDAGraph()
    value += 1
    with torch.cuda.graph(graph):
        value += 1
    allocator.sleep()
    allocator.wake_up()
    graph.replay()
    assert value.unique().tolist() == [3]


def test_a_device_that_is_full(allocator: cumem.CuMemAllocator) -> None:
    half = free_bytes() * 6 // 10
    with allocator.use_memory_pool():
        asleep = torch.full((half,), 7, dtype=torch.uint8, device="cuda")
        with pytest.raises(torch.cuda.OutOfMemoryError):
            torch.empty(half, dtype=torch.uint8, device="cuda")
    allocator.sleep(())
    in_the_way = torch.empty(half, dtype=torch.uint8, device="cuda")
    with pytest.raises(RuntimeError, match="out of memory"):
        allocator.wake_up()
    assert in_the_way.numel() == half
    del in_the_way
    torch.cuda.empty_cache()
    allocator.wake_up()
    assert asleep.fill_(9)[-1].item() == 9


def test_temporary_tensors_are_given_back_with_the_pool(allocator: cumem.CuMemAllocator) -> None:
    with allocator.use_memory_pool():
        kept = torch.empty(SIZE, dtype=torch.uint8, device="cuda")
        torch.empty(SIZE * 2, dtype=torch.uint8, device="cuda")
    assert allocator.get_current_usage() < 2 * SIZE
    assert kept.fill_(1)[0].item() == 1
