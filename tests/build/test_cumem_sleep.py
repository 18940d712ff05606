# SPDX-License-Identifier: Apache-2.0
"""Sleeping memory: the package's allocator with the compiled one and a driver that counts.

torch is replaced by a module that only has pools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cumem_build import DRIVERS, allocator_site, counting_driver, run  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=DRIVERS)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


START = """
import gc
import fake_torch
fake_torch.install()
from fake_torch import CudaTensor
from vllm._kernels import cumem
allocator = cumem.CuMemAllocator.get_instance()
def tensor(text):
    made = CudaTensor(2 * MIB)
    write(made.address, text)
    return made
def holds(made):
    return read(made.address, 8).rstrip(bytes(1))
def asleep():
    return sorted(data.tag for data in allocator.pointer_to_data.values() if data.asleep)
"""


def test_contents_of_the_tags_that_are_kept_come_back(site: Path, driver: Path) -> None:
    code = """
assert allocator is cumem.CuMemAllocator.get_instance() and cumem.cumem_available
with allocator.use_memory_pool(tag="weights"):
    weights = tensor(b"weights")
with allocator.use_memory_pool("kv_cache"):
    cache = tensor(b"cache")
with allocator.use_memory_pool():
    other = tensor(b"other")
tags = [data.tag for data in allocator.pointer_to_data.values()]
assert tags == ["weights", "kv_cache", "default"]
assert allocator.get_current_usage() == count("bytes") == 6 * MIB
for kept, back in (
    (("weights", "kv_cache"), [b"weights", b"cache", b""]),
    ("weights", [b"weights", b"", b""]),
    (None, [b"", b"", b"other"]),
    ((), [b"", b"", b""]),
    (["default"], [b"", b"", b"other"]),
):
    for made, text in ((weights, b"weights"), (cache, b"cache"), (other, b"other")):
        write(made.address, text)
    fake_torch.pinned.clear()
    allocator.sleep(kept) if kept is not None else allocator.sleep()
    assert left() == {"ranges": 3, "mapped": 0, "physical": 0, "bytes": 0}
    assert fake_torch.pinned == [2 * MIB] * sum(map(bool, back))
    assert allocator.get_current_usage() == 6 * MIB
    allocator.sleep(offload_tags=("weights", "kv_cache", "default"))  # nothing to do
    allocator.wake_up()
    assert [holds(made) for made in (weights, cache, other)] == back, kept
    assert all(data.cpu_backup_tensor is None for data in allocator.pointer_to_data.values())
    allocator.wake_up()
del weights, cache, other, made
gc.collect()
fake_torch.empty_cache()
assert (left(), allocator.pointer_to_data, reported) == (NOTHING, {}, [])
assert allocator.get_current_usage() == 0
"""
    run(site, driver, START + code)


def test_waking_up_by_tag(site: Path, driver: Path) -> None:
    code = """
with allocator.use_memory_pool("weights"):
    weights = tensor(b"weights")
    with allocator.use_memory_pool("kv_cache"):
        cache = tensor(b"cache")
    assert allocator.current_tag == "weights"
assert allocator.current_tag == "default"
allocator.sleep(("weights", "kv_cache"))
assert asleep() == ["kv_cache", "weights"]
allocator.wake_up(["nobody"])
allocator.wake_up(tags=[])
assert asleep() == ["kv_cache", "weights"]
allocator.wake_up(tags=["weights"])
assert (asleep(), holds(weights)) == (["kv_cache"], b"weights")
write(weights.address, b"changed")
allocator.wake_up(tags="kv_cache")
assert (asleep(), holds(weights), holds(cache)) == ([], b"changed", b"cache")
"""
    run(site, driver, START + code)


def test_a_device_that_is_full_when_memory_wakes_up(site: Path, driver: Path) -> None:
    code = """
with allocator.use_memory_pool("weights"):
    made = [tensor(b"first"), tensor(b"second"), tensor(b"third")]
    with raises(fake_torch.OutOfMemoryError, "CUDA out of memory"):
        tensor(b"fourth")
    assert not reported
allocator.sleep("weights")
with allocator.use_memory_pool("other"):
    in_the_way = tensor(b"other")
with raises(RuntimeError, "out of memory"):
    allocator.wake_up()
assert asleep() == ["weights"] and [holds(one) for one in made[:2]] == [b"first", b"second"]
with raises(RuntimeError, "out of memory"):
    allocator.wake_up()
del in_the_way
fake_torch.empty_cache()
fail(TO_DEVICE)
with raises(RuntimeError, TO_DEVICE):
    allocator.wake_up()
assert (asleep(), count("mapped")) == (["weights"], 2)
allocator.wake_up()
assert [holds(one) for one in made] == [b"first", b"second", b"third"]
"""
    run(site, driver, START + code, FAKE_GPU_MEMORY=str(7 << 20))


def test_sleep_that_fails_half_way(site: Path, driver: Path) -> None:
    code = """
with allocator.use_memory_pool("weights"):
    made = [tensor(b"first"), tensor(b"second"), tensor(b"third")]
for step, after in ((UNMAP, 1), (TO_HOST, 1)):
    fail(step, after=after)
    with raises(RuntimeError, step):
        allocator.sleep("weights")
    assert count("mapped") == 2 and [holds(one) for one in made[1:]] == [b"second", b"third"]
    kept = [data.cpu_backup_tensor is not None for data in allocator.pointer_to_data.values()]
    assert kept == [True, False, False]
    allocator.wake_up()
    assert [holds(one) for one in made] == [b"first", b"second", b"third"]
fake_torch.refuse = True
with raises(RuntimeError, "the host cannot pin that much"):
    allocator.sleep("weights")
assert asleep() == []
with allocator.use_memory_pool():
    with raises(RuntimeError, "sleep() inside use_memory_pool()"):
        allocator.sleep("weights")
allocator.sleep("weights")
allocator.wake_up()
assert [holds(one) for one in made] == [b"first", b"second", b"third"]
"""
    run(site, driver, START + code)


def test_tensors_may_go_at_any_time(site: Path, driver: Path) -> None:
    code = """
with allocator.use_memory_pool("weights"):
    kept, gone = tensor(b"kept"), tensor(b"gone")
    for _ in range(3):
        tensor(b"temporary")
    assert count("mapped") == 3, "torch caches it"
assert count("mapped") == 2, "and gives it back with the pool"
with allocator.use_memory_pool("weights"):
    unused = [tensor(b"unused")]
gc.disable()  # until sleep() looks for cycles
unused.append(unused)
del unused
assert count("mapped") == 3
allocator.sleep("weights")
assert (count("ranges"), len(fake_torch.pinned)) == (2, 2), "what no tensor uses is not kept"
del gone
fake_torch.empty_cache()
freed = "sleeping memory can be freed"
assert (count("ranges"), len(allocator.pointer_to_data)) == (1, 1), freed
with allocator.use_memory_pool("weights"):
    new = tensor(b"new")
assert (holds(new), asleep()) == (b"new", ["weights"])
allocator.wake_up()
assert (holds(new), holds(kept), reported) == (b"new", b"kept", [])
"""
    run(site, driver, START + code)


def test_wrong_arguments(site: Path, driver: Path) -> None:
    code = """
for wrong in (3, 1.5, ("a", 3), [None], {"a": 1}, b"a"):
    with raises(TypeError, "offload_tags is "):
        allocator.sleep(wrong)
    with raises(TypeError, "tags is "):
        allocator.wake_up(wrong)
    with raises(TypeError, "tag is "):
        with allocator.use_memory_pool(wrong):
            raise AssertionError
assert (allocator.current_tag, allocator._open_pools) == ("default", 0)
with raises(ValueError, "mine"):
    with allocator.use_memory_pool("weights"):
        raise ValueError("mine")
assert (allocator.current_tag, allocator._open_pools) == ("default", 0)
with raises(RuntimeError, "there is no allocation"):
    cumem.create_and_map(UNKNOWN_HANDLE)
with raises(RuntimeError, "there is no allocation"):
    cumem.unmap_and_release(UNKNOWN_HANDLE)
"""
    run(site, driver, START + code)


def test_the_functions_work_without_the_allocator_class(site: Path, driver: Path) -> None:
    """The functions work for a program that keeps its own records."""
    code = """
handles = {}
def remember(handle):
    handles[handle[2]] = handle
with cumem.use_memory_pool_with_allocator(remember, handles.pop) as (pool, plugged):
    made = tensor(b"x")
    assert type(pool) is fake_torch.MemPool and type(plugged) is fake_torch.CUDAPluggableAllocator
cumem.unmap_and_release(handles[made.address])
cumem.create_and_map(handles[made.address])
assert holds(made) == b""
del made, pool
fake_torch.empty_cache()
assert (left(), handles, allocator.pointer_to_data, reported) == (NOTHING, {}, {}, [])
"""
    run(site, driver, START + code)


@pytest.mark.parametrize("name", ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"])
def test_expandable_segments(site: Path, driver: Path, name: str) -> None:
    code = (
        START.replace("allocator = cumem.CuMemAllocator.get_instance()", "")
        + f"""
with raises(RuntimeError, "{name} enables expandable_segments"):
    cumem.CuMemAllocator.get_instance()
os.environ["{name}"] = "expandable_segments:False,garbage_collection_threshold:0.8"
cumem.CuMemAllocator.get_instance()
"""
    )
    run(
        site,
        driver,
        "import os\n" + code,
        **{name: "max_split_size_mb:128,expandable_segments: True"},
    )


def test_importing_it_needs_no_torch_and_no_driver(site: Path) -> None:
    code = """
from vllm._kernels import cumem
assert cumem.cumem_available and "torch" not in sys.modules
cumem.CuMemAllocator.get_instance().wake_up()
assert "torch" not in sys.modules
"""
    run(site, None, code)
