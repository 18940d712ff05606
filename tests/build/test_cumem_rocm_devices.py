# SPDX-License-Identifier: Apache-2.0
"""ROCm's memory allocator with different devices and runtimes, in threads, and while it sleeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cumem_build import (  # noqa: F401 - fixtures
    allocator_site,
    build_driver,
    counting_driver,
    run,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def device() -> str:
    return "rocm"


def test_the_current_device_is_restored(site: Path, driver: Path) -> None:
    code = """
init()
for mine in (0, 1, 2):
    driver.hipSetDevice(mine)
    for device in (0, 1, 2):
        address = malloc(1, device)
        handle = known[address]
        assert handle[0] == device
        module.python_unmap_and_release(*handle)
        module.python_create_and_map(*handle)
        host = ctypes.create_string_buffer(handle[1])
        module.copy_to_host(*handle, ctypes.addressof(host))
        module.copy_to_device(*handle, ctypes.addressof(host))
        free(address)
        assert count("current") == mine
    assert malloc(1 << 40) is None
    assert count("current") == mine
for step in ("hipGetDevice", "hipSetDevice"):
    fail(step)
    assert malloc(1, 0) is None
    said(f"{step}: something else")
    assert count("current") == 2
for device in (-1, 3, 127, 128, 1 << 30):
    assert malloc(1, device) is None
    words = "hipSetDevice" if 0 < device < 128 else "there is no device"
    assert reported.pop().startswith("RuntimeError: " + words), device
assert (left(), reported, count("last_error")) == (NOTHING, [], 0)
"""
    run(site, driver, code, FAKE_GPU_DEVICES="3")


def test_a_device_without_virtual_memory(site: Path, driver: Path) -> None:
    code = (
        "init()\nassert malloc(1) is None\nsaid('device 0 has no virtual memory management')\n"
        "assert left() == NOTHING"
    )
    run(site, driver, code, FAKE_GPU_ATTRIBUTES="89=0,102=1")


def test_a_runtime_that_finds_no_device(site: Path, driver: Path) -> None:
    code = """
init()
assert malloc(1) is None
said(
    "RuntimeError: hipGetDevice: no ROCm-capable device is detected (hipErrorNoDevice, 100)"
)
"""
    run(site, driver, code, FAKE_GPU_DEVICES="0")


def test_a_runtime_that_is_too_old(site: Path, tmp_path: Path) -> None:
    old = build_driver(tmp_path, "-DWITHOUT_CREATE", device="rocm")
    code = """
init()
assert malloc(1) is None
said("the HIP runtime of this process has no hipMemCreate: virtual memory management needs ROCm")
"""
    run(site, old, code)


NO_RUNTIME = """
init()
assert malloc(1) is None
said("RuntimeError: no HIP runtime is loaded in this process, expected libamdhip64.so of a torch")
with raises(RuntimeError, "there is no allocation"):
    module.python_create_and_map(0, 1, 2, [(3, 1)])
"""


def test_without_a_runtime(site: Path) -> None:
    run(site, None, NO_RUNTIME)


@pytest.mark.parametrize("name", ["libamdhip64.so", "libamdhip64-a1b2c3d4.so.6.4.1"])
def test_a_runtime_that_torch_loads_later(site: Path, driver: Path, name: str) -> None:
    """A wheel of torch may bring its runtime under any name that begins like AMD's."""
    code = f"""
import shutil, tempfile
with tempfile.TemporaryDirectory() as folder:
    path = shutil.copy({str(driver / "libamdhip64.so.7")!r}, folder + "/{name}")
    runtime = ctypes.CDLL(path)
address = malloc(3 * MIB)
assert (known[address][1], runtime.fake_count(b"mapped")) == (4 * MIB, 1)
free(address)
assert (runtime.fake_count(b"ranges"), known, reported) == (0, {{}}, [])
"""
    run(site, None, NO_RUNTIME + code)


def test_threads(site: Path, driver: Path) -> None:
    code = """
import threading
init()
def work(number):
    for turn in range(25):
        size = (1 + (number + turn) % 4) * 4 * MIB - 3 * MIB
        address = malloc(size)
        handle = known[address]
        end = address + handle[1] - 64
        for place in (address, end):
            write(place, bytes([number]) * 64)
        if turn % 3 == 0:
            module.python_unmap_and_release(*handle)
        if turn % 6 == 0:
            module.python_create_and_map(*handle)
        if turn % 3:
            assert read(address, 64) == read(end, 64) == bytes([number]) * 64
        free(address)
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert (left(), known, reported) == (NOTHING, {}, [])
"""
    run(site, driver, code, VLLM_SLEEP_MEM_CHUNK_SIZE="4")


def test_tensors_of_several_chunks_sleep_and_wake_up(site: Path, driver: Path) -> None:
    code = """
import fake_torch
fake_torch.install()
from fake_torch import CudaTensor
from vllm.device_allocator import cumem
allocator = cumem.CuMemAllocator.get_instance()
def tensor(size, text):
    made = CudaTensor(size)
    made.text = text * (size // len(text))
    write(made.address, made.text)
    return made
def whole(made):
    return read(made.address, len(made.text)) == made.text
with allocator.use_memory_pool("weights"):
    made = [tensor(10 * MIB, b"1234"), tensor(2 * MIB, b"5678"), tensor(8 * MIB, b"abcd")]
data = [allocator.pointer_to_data[one.address] for one in made]
assert [len(one.handle[3]) for one in data] == [3, 1, 2]
assert allocator.get_current_usage() == 20 * MIB
allocator.sleep("weights")
assert left() == {"ranges": 3, "mapped": 0, "physical": 0, "bytes": 0}
with allocator.use_memory_pool("other"):
    in_the_way = tensor(8 * MIB, b"x")
with raises(RuntimeError, "out of memory"):
    allocator.wake_up()
assert [one.asleep for one in data] == [False, False, True] and whole(made[0]) and whole(made[1])
del in_the_way
fake_torch.empty_cache()
fail("hipMemcpy", after=1)
with raises(RuntimeError, "hipMemcpy"):
    allocator.wake_up()
assert data[2].asleep and count("mapped") == 4
allocator.wake_up()
assert all(map(whole, made))
fail("hipMemUnmap", after=2)
with raises(RuntimeError, "hipMemUnmap"):
    allocator.sleep("weights")
assert all(map(whole, made)) and not any(one.asleep for one in data)
fail("hipMemRelease")
allocator.sleep("weights")
said("hipMemRelease")
assert all(one.asleep for one in data) and count("physical") == 1
allocator.wake_up()
assert all(map(whole, made)) and not reported
del made, data
fake_torch.empty_cache()
assert (left(), allocator.pointer_to_data, reported) == (NOTHING, {}, [])
"""
    run(site, driver, code, VLLM_SLEEP_MEM_CHUNK_SIZE="4", FAKE_GPU_MEMORY=str(21 << 20))


def test_expandable_segments_of_rocm(site: Path, driver: Path) -> None:
    code = """
from vllm.device_allocator import cumem
with raises(RuntimeError, "PYTORCH_HIP_ALLOC_CONF enables expandable_segments"):
    cumem.CuMemAllocator.get_instance()
"""
    run(site, driver, code, PYTORCH_HIP_ALLOC_CONF="expandable_segments:True")
