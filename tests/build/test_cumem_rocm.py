# SPDX-License-Identifier: Apache-2.0
"""The memory allocator's compiled part for ROCm, with a HIP runtime that checks HIP's rules.

The runtime counts the memory that it has allocated. It ends the program where HIP would crash or
leak.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cumem_build import (  # noqa: F401 - fixtures
    allocator_site,
    build_driver,
    counting_driver,
    run,
)
from cumem_scripts import SMALL, THREE

from vllm_build.checks import elf, library_audit, link_check

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def device() -> str:
    return "rocm"


def test_nothing_of_hip_is_needed(site: Path) -> None:
    (library,) = (site / "vllm").glob("cumem_allocator.*so")
    link_check.require(library, "rocm", torch=False)
    asked = elf.read(library)
    assert not [
        name
        for name in asked.needed
        if name.startswith(("libamdhip", "libhsa", "libtorch", "libc10", "libpython"))
    ]
    assert not [symbol.name for symbol in asked.undefined if "hip" in symbol.name.lower()]
    findings = library_audit.where_installed([library], abi3=library.name.endswith(".abi3.so"))
    assert [f"{f.check}: {f.text}" for f in findings if not f.good] == []
    run(site, None, "assert driver is None and module.init_module")


def test_a_round_trip_in_chunks(site: Path, driver: Path) -> None:
    code = """
assert len({place for place, _ in handle[3]}) == 3
assert handle == (0, 10 * MIB, address, handle[3]) and type(handle[3]) is list
write(address, TEXT)
host = ctypes.create_string_buffer(10 * MIB)
module.copy_to_host(*handle, ctypes.addressof(host))
assert host.raw == TEXT
module.python_unmap_and_release(*handle)
assert left() == ASLEEP
module.python_create_and_map(*handle)
assert (left(), count("created")) == (AWAKE, 6)
assert read(address, 8) == read(address + 9 * MIB, 8) == bytes(8), "new memory, not the old"
module.copy_to_device(*handle, ctypes.addressof(host))
assert read(address, 10 * MIB) == TEXT
free(address)
assert (left(), known, reported, count("last_error")) == (NOTHING, {}, [], 0)
"""
    run(site, driver, THREE + code, **SMALL)


@pytest.mark.parametrize(
    ("setting", "chunk"),
    [("", 256), ("  ", 256), ("1", 2), (" 3 ", 4), ("010", 10), ("0x10", 16), ("1048576", 512)],
)
def test_sizes_of_chunks(site: Path, driver: Path, setting: str, chunk: int) -> None:
    """The setting is rounded up to the granularity, and all chunks but the last have that size."""
    code = f"""
init()
address = malloc(512 * MIB)
sizes = [size // MIB for _, size in known[address][3]]
assert sum(sizes) == 512 and set(sizes[:-1]) <= {{{chunk}}} and sizes[0] == {chunk}, sizes
free(address)
for size in (1, 2 * MIB, 2 * MIB + 1):
    address = malloc(size)
    assert sum(size for _, size in known[address][3]) == known[address][1] == count("bytes")
    free(address)
assert (left(), reported) == (NOTHING, [])
"""
    run(site, driver, code, VLLM_SLEEP_MEM_CHUNK_SIZE=setting, FAKE_GPU_MEMORY=str(512 << 20))


def test_the_setting_is_read_when_the_callbacks_are_set(site: Path, driver: Path) -> None:
    code = """
import os
for wrong in ("0", "-1", "4 MB", "4.5", "many", "0x", "1048577", "1" * 30):
    os.environ["VLLM_SLEEP_MEM_CHUNK_SIZE"] = wrong
    with raises(RuntimeError, f"VLLM_SLEEP_MEM_CHUNK_SIZE is '{wrong}', expected a whole number"):
        init()
assert malloc(1) is None
said("init_module has not been called")
for setting, chunks in (("2", 3), ("4", 2)):
    os.environ["VLLM_SLEEP_MEM_CHUNK_SIZE"] = setting
    init()
    address = malloc(6 * MIB)
    assert len(known[address][3]) == chunks
    free(address)
assert (left(), reported) == (NOTHING, [])
"""
    run(site, driver, code)


FIRST_STEPS = [
    "hipGetDevice",
    "hipDeviceGetAttribute",
    "hipMemGetAllocationGranularity",
    "hipMemAddressReserve",
]
CHUNK_STEPS = ["hipMemCreate", "hipMemMap", "hipMemSetAccess"]


def test_an_allocation_that_fails_at_any_chunk_leaves_nothing(site: Path, driver: Path) -> None:
    code = f"""
init()
for step in {FIRST_STEPS + CHUNK_STEPS!r}:
    for after in range(3) if step in {CHUNK_STEPS!r} else range(1):
        fail(step, after=after)
        assert malloc(9 * MIB) is None, step
        said(f"RuntimeError: {{step}}: something else (hipErrorOther, 999)")
        assert (left(), known, count("last_error")) == (NOTHING, {{}}, 0), (step, after)
address = malloc(9 * MIB)
free(address)
assert (left(), reported) == (NOTHING, [])
fail("hipMemCreate", 1234567)
assert malloc(1) is None
said("hipMemCreate: no description (an error without a name, 1234567)")
for after, rest in (
    (None, NOTHING),  # a chunk that is not unmapped is unmapped when the addresses are freed
    (1, {{"ranges": 1, "mapped": 1, "physical": 1, "bytes": 4 * MIB}}),
):
    fail("hipMemMap", after=2)
    fail("hipMemUnmap")
    if after is not None:
        fail("hipMemUnmap", after=after)
    assert malloc(9 * MIB) is None
    said("hipMemMap: something else")
    assert (left(), count("last_error")) == (rest, 0)
"""
    run(site, driver, code, **SMALL)


def test_mapping_again_is_done_or_not_done(site: Path, driver: Path) -> None:
    code = f"""
module.python_unmap_and_release(*handle)
for step in {CHUNK_STEPS!r}:
    for after in range(3):
        fail(step, after=after)
        with raises(RuntimeError, f"{{step}}: something else"):
            module.python_create_and_map(*handle)
        assert (left(), count("last_error")) == (ASLEEP, 0), (step, after)
module.python_create_and_map(*handle)
assert left() == AWAKE
write(address, TEXT)
host = ctypes.create_string_buffer(10 * MIB)
for step, copy, times in (
    ("hipDeviceSynchronize", module.copy_to_host, 1),
    ("hipMemcpy", module.copy_to_host, 3),
    ("hipMemcpy", module.copy_to_device, 3),
):
    ctypes.memmove(host, TEXT, len(TEXT))
    for after in range(times):
        fail(step, after=after)
        with raises(RuntimeError, f"{{step}}: something else"):
            copy(*handle, ctypes.addressof(host))
assert read(address, len(TEXT)) == TEXT
free(address)
assert (left(), known, reported) == (NOTHING, {{}}, [])
"""
    run(site, driver, THREE + code, **SMALL)


def test_unmapping_that_fails_keeps_the_contents(site: Path, driver: Path) -> None:
    """The chunks before the one that failed are mapped again, with the memory that they had."""
    code = """
write(address, TEXT)
for step, times in (("hipDeviceSynchronize", 1), ("hipMemUnmap", 3)):
    for after in range(times):
        fail(step, after=after)
        with raises(RuntimeError, f"{step}: something else (hipErrorOther, 999)"):
            module.python_unmap_and_release(*handle)
        assert (left(), count("created"), count("last_error")) == (AWAKE, 3, 0), (step, after)
        assert read(address, 10 * MIB) == TEXT, (step, after)
with raises(RuntimeError, "is mapped already"):
    module.python_create_and_map(*handle)
module.python_unmap_and_release(*handle)
assert left() == ASLEEP
free(address)
assert (left(), known, reported) == (NOTHING, {}, [])
"""
    run(site, driver, THREE + code, **SMALL)


@pytest.mark.parametrize("step", ["hipMemMap", "hipMemSetAccess"])
def test_a_device_that_neither_unmaps_nor_maps(site: Path, driver: Path, step: str) -> None:
    code = f"""
write(address, TEXT)
def break_it():
    fail("hipMemUnmap", after=1)
    fail("{step}")
    with raises(RuntimeError, "999); some of the memory is lost: {step}: something else"):
        module.python_unmap_and_release(*handle)
break_it()
assert left() == {{"ranges": 1, "mapped": 2, "physical": 3, "bytes": 10 * MIB}}
host = ctypes.create_string_buffer(10 * MIB)
with raises(RuntimeError, "is not mapped"):
    module.copy_to_host(*handle, ctypes.addressof(host))
module.python_create_and_map(*handle)
assert (left(), count("created")) == (AWAKE, 3)
assert read(address, 10 * MIB) == TEXT, "the memory was there all the time"
break_it()
free(address)
assert (left(), known, reported) == (NOTHING, {{}}, []), "it can be freed in any state"
"""
    run(site, driver, THREE + code, **SMALL)


def test_memory_that_cannot_be_released_is_reported_and_used_again(
    site: Path, driver: Path
) -> None:
    code = """
fail("hipMemRelease", after=1)
module.python_unmap_and_release(*handle)
said("RuntimeError: hipMemRelease: something else")
assert left() == {"ranges": 1, "mapped": 0, "physical": 1, "bytes": 4 * MIB}
with raises(RuntimeError, "is not mapped"):
    module.python_unmap_and_release(*handle)
module.python_create_and_map(*handle)
assert (left(), count("created"), count("last_error")) == (AWAKE, 5, 0)
fail("hipMemRelease")
module.python_unmap_and_release(*handle)
said("hipMemRelease: something else")
free(address)
assert (left(), known, reported) == (NOTHING, {}, []), "freeing tries once more"
"""
    run(site, driver, THREE + code, **SMALL)


def test_freeing_continues_after_an_error_and_reports_the_first(site: Path, driver: Path) -> None:
    code = """
def freed(*steps):
    address = malloc(9 * MIB)
    for step, result, after in steps:
        fail(step, result, after)
    free(address)
freed(("hipDeviceSynchronize", 999, 0))
said("hipDeviceSynchronize: something else")
assert left() == NOTHING, "the device has failed; its memory is not kept for that"
freed(("hipDeviceSynchronize", 4, 0))
assert (left(), reported) == (NOTHING, []), "the runtime has ended before us"
freed(("hipMemRelease", 999, 1), ("hipMemRelease", 998, 1))
assert reported.pop() == "RuntimeError: hipMemRelease: something else (hipErrorOther, 999)"
assert (left()["physical"], left()["ranges"]) == (2, 0)
freed(("hipMemAddressFree", 999, 0))
said("hipMemAddressFree: something else")
assert (left()["physical"], left()["ranges"]) == (2, 1)
freed(("hipMemUnmap", 999, 1))
said("hipMemUnmap: something else")
assert left() == {"ranges": 2, "mapped": 1, "physical": 3, "bytes": 10 * MIB}
assert (known, reported, count("last_error")) == ({}, [], 0)
"""
    run(site, driver, "init()\n" + code, **SMALL)


def test_memory_that_is_used_up_in_the_middle_of_an_allocation(site: Path, driver: Path) -> None:
    code = """
assert malloc(9 * MIB) is None and not reported, "torch frees what it has cached and asks again"
assert (left(), count("last_error")) == (AWAKE, 0), "the two chunks that there was memory for"
module.python_unmap_and_release(*handle)
other = malloc(9 * MIB)
with raises(RuntimeError, "hipMemCreate: out of memory (hipErrorOutOfMemory, 2)"):
    module.python_create_and_map(*handle)
assert left() == {"ranges": 2, "mapped": 3, "physical": 3, "bytes": 10 * MIB}
free(other)
module.python_create_and_map(*handle)
free(address)
for size in (1 << 40, 1 << 62, (1 << 63) - 1):
    assert malloc(size) is None and not reported, size
assert malloc(-1) is None
said("RuntimeError: cannot allocate -1 bytes")
assert (left(), known, reported) == (NOTHING, {}, [])
"""
    run(site, driver, THREE + code, FAKE_GPU_MEMORY=str(19 << 20), **SMALL)
