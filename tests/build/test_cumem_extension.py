# SPDX-License-Identifier: Apache-2.0
"""The memory allocator's compiled part, with a driver that checks CUDA's rules.

The driver counts the memory that it has allocated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cumem_build import (  # noqa: F401 - fixtures
    allocator_site,
    build_driver,
    counting_driver,
    one_device,
    run,
)

from vllm_build.checks import elf, library_audit, link_check

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def library(site: Path) -> Path:
    (found,) = (site / "vllm").glob("cumem_allocator.*so")
    return found


def test_dependencies_are_the_interpreter_and_the_system(library: Path) -> None:
    link_check.require(library, "cuda", torch=False)
    asked = elf.read(library)
    assert not [
        name
        for name in asked.needed
        if name.startswith(("libcuda", "libtorch", "libc10", "libpython"))
    ]
    assert not [symbol.name for symbol in asked.undefined if symbol.name.startswith("cu")]
    findings = library_audit.where_installed([library], abi3=library.name.endswith(".abi3.so"))
    assert [f"{f.check}: {f.text}" for f in findings if not f.good] == []


def test_exports_are_the_entry_point_and_torch_s_two(library: Path) -> None:
    from elftools.elf.elffile import ELFFile

    with library.open("rb") as stream:
        symbols = list(ELFFile(stream).get_section_by_name(".dynsym").iter_symbols())
    shown = {symbol.name for symbol in symbols if symbol["st_shndx"] != "SHN_UNDEF" and symbol.name}
    assert shown == {"PyInit_cumem_allocator", "my_malloc", "my_free"}


ROUND_TRIP = """
init()
address = malloc(3 * MIB)
assert known == {address: (0, 4 * MIB, address, known[address][3])}
handle = known[address]
assert left() == {"ranges": 1, "mapped": 1, "physical": 1, "bytes": 4 * MIB}
write(address, b"kept" * MIB)
host = ctypes.create_string_buffer(4 * MIB)
module.copy_to_host(*handle, ctypes.addressof(host))
assert host.raw == b"kept" * MIB
module.python_unmap_and_release(*handle)
assert left() == {"ranges": 1, "mapped": 0, "physical": 0, "bytes": 0}
module.python_create_and_map(*handle)
assert left() == {"ranges": 1, "mapped": 1, "physical": 1, "bytes": 4 * MIB}
assert read(address, 8) == bytes(8), "new memory, not the old"
module.copy_to_device(*handle, ctypes.addressof(host))
assert read(address, 4 * MIB) == b"kept" * MIB
free(address)
assert (left(), known, reported) == (NOTHING, {}, [])
"""


@pytest.mark.parametrize("entry_points", [0, 1, 2])
def test_a_round_trip_with_every_way_to_find_the_driver_s_functions(
    site: Path, tmp_path: Path, entry_points: int
) -> None:
    run(site, build_driver(tmp_path, f"-DGET_PROC_ADDRESS={entry_points}"), ROUND_TRIP)


def test_sizes_are_rounded_up_to_the_granularity(site: Path, driver: Path) -> None:
    code = """
init()
for size, whole in ((1, 1), (MIB - 1, 1), (MIB, 1), (MIB + 1, 2), (5 * MIB, 5)):
    address = malloc(size)
    assert known[address][1] == whole * MIB == count("bytes"), size
    free(address)
assert (left(), reported) == (NOTHING, [])
"""
    run(site, driver, code, FAKE_GPU_GRANULARITY=str(1 << 20))


def test_invalid_sizes(site: Path, driver: Path) -> None:
    code = """
init()
assert malloc(0) is None and not reported
for size in (1 << 40, 1 << 62, (1 << 63) - 1):
    assert malloc(size) is None
    assert not reported, "torch has its own words for it"
assert malloc(-1) is None
said("RuntimeError: cannot allocate -1 bytes")
assert (left(), known) == (NOTHING, {})
free(None)
assert not reported
free(4096)
said("cannot free 0x1000: no allocation begins at that address")
"""
    run(site, driver, code)


DEVICE_STEPS = [
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuMemGetAllocationGranularity",
    "cuDevicePrimaryCtxRetain",
]
STEPS = [
    *DEVICE_STEPS,
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuMemAddressReserve",
    "cuMemCreate",
    "cuMemMap",
    "cuMemRelease",
    "cuMemSetAccess",
]


def test_an_allocation_that_fails_at_any_step_leaves_nothing(site: Path, driver: Path) -> None:
    code = f"""
init()
for step in {STEPS!r}:
    for after in (0, 1) if step == "cuCtxGetCurrent" else (0,):
        fail(step, after=after)
        assert malloc(1) is None, step
        said(f"RuntimeError: {{step}}: something else (CUDA_ERROR_OTHER, 999)")
        assert (left(), known) == (NOTHING, {{}}), step
        current = ctypes.c_void_p(1)
        driver.cuCtxGetCurrent(ctypes.byref(current))
        assert current.value is None, step
address = malloc(1)
free(address)
assert (left(), reported, count("retained")) == (NOTHING, [], 1)
fail("cuMemCreate", 1234567)
assert malloc(1) is None
said("cuMemCreate: no description (an error without a name, 1234567)")
"""
    run(site, driver, code)


def test_mapping_again_is_done_or_not_done(site: Path, driver: Path) -> None:
    code = """
init()
address = malloc(1)
handle = known[address]
module.python_unmap_and_release(*handle)
for step in ("cuCtxSetCurrent", "cuMemCreate", "cuMemMap", "cuMemRelease", "cuMemSetAccess"):
    fail(step)
    with raises(RuntimeError, f"{step}: something else"):
        module.python_create_and_map(*handle)
    assert left() == {"ranges": 1, "mapped": 0, "physical": 0, "bytes": 0}, step
module.python_create_and_map(*handle)
write(address, b"kept")
for step in ("cuCtxSetCurrent", "cuCtxSynchronize", "cuMemUnmap"):
    fail(step)
    with raises(RuntimeError, f"{step}: something else"):
        module.python_unmap_and_release(*handle)
    assert read(address, 4) == b"kept", step
host = ctypes.create_string_buffer(2 * MIB)
for step, copy in (
    ("cuCtxSynchronize", module.copy_to_host),
    ("cuMemcpyDtoH", module.copy_to_host),
    ("cuMemcpyHtoD", module.copy_to_device),
):
    fail(step)
    with raises(RuntimeError, f"{step}: something else"):
        copy(*handle, ctypes.addressof(host))
assert read(address, 4) == b"kept"
module.python_unmap_and_release(*handle)
free(address)
assert (left(), known, reported) == (NOTHING, {}, []), "memory that sleeps can be freed"
"""
    run(site, driver, code)


def test_freeing_continues_after_an_error_and_reports_it(site: Path, driver: Path) -> None:
    code = """
init()
address = malloc(1)
fail("cuCtxSynchronize")
free(address)
said("cuCtxSynchronize: something else")
assert left() == NOTHING, "the device has failed; its memory is not kept for that"
address = malloc(1)
fail("cuMemAddressFree")
free(address)
said("cuMemAddressFree: something else")
assert left() == {"ranges": 1, "mapped": 0, "physical": 0, "bytes": 0}
address = malloc(1)
fail("cuMemUnmap")
free(address)
said("cuMemUnmap: something else")
address = malloc(1)
fail("cuCtxSynchronize", 4)
free(address)
assert not reported, "the driver has ended before us"
assert known == {}
"""
    run(site, driver, code)


def test_memory_that_is_used_up(site: Path, driver: Path) -> None:
    code = """
init()
first, second = malloc(4 * MIB), malloc(4 * MIB)
assert malloc(4 * MIB) is None and not reported, "torch frees what it has cached and asks again"
handle = known[first]
module.python_unmap_and_release(*handle)
third = malloc(4 * MIB)
assert third
with raises(RuntimeError, "cuMemCreate: out of memory (CUDA_ERROR_OUT_OF_MEMORY, 2)"):
    module.python_create_and_map(*handle)
assert left() == {"ranges": 3, "mapped": 2, "physical": 2, "bytes": 8 * MIB}
free(second)
module.python_create_and_map(*handle)
for address in (first, third):
    free(address)
assert (left(), known, reported) == (NOTHING, {}, [])
"""
    run(site, driver, code, FAKE_GPU_MEMORY=str(10 << 20))


def test_wrong_arguments(site: Path, driver: Path) -> None:
    code = """
for wrong in ((), (on_malloc,), (on_malloc, on_free, None)):
    with raises(TypeError, "init_module"):
        module.init_module(*wrong)
for wrong in ((None, on_free), (on_malloc, 3)):
    with raises(TypeError, "expected two callables"):
        module.init_module(*wrong)
init()
address = malloc(1)
handle = known[address]
device, size, _, place = handle
host = ctypes.addressof(ctypes.create_string_buffer(2 * MIB))
for function, more in (
    (module.python_create_and_map, ()),
    (module.python_unmap_and_release, ()),
    (module.copy_to_host, (host,)),
    (module.copy_to_device, (host,)),
):
    for wrong in ((), handle[:3], (*handle, *more, 0)):
        with raises(TypeError, f"{function.__name__}: expected {4 + len(more)} values"):
            function(*wrong)
    for wrong in (1.0, "1", None):
        with raises(TypeError, "integer"):
            function(device, size, wrong, place, *more)
    for wrong in (-1, 1 << 64, -(1 << 70)):
        with raises(OverflowError, ""):
            function(device, wrong, address, place, *more)
    for wrong in (
        (1, size, address, place),
        (0, size + 1, address, place),
        (0, size, address + 8, place),
        (0, size, address, place + 8),
        (0, 0, 0, 0),
        ((1 << 64) - 1,) * 4,
    ):
        with raises(RuntimeError, "there is no allocation of "):
            function(*wrong, *more)
with raises(RuntimeError, "is mapped already"):
    module.python_create_and_map(*handle)
module.python_unmap_and_release(*handle)
for function, more in (
    (module.python_unmap_and_release, ()),
    (module.copy_to_host, (host,)),
    (module.copy_to_device, (host,)),
):
    with raises(RuntimeError, "is not mapped"):
        function(*handle, *more)
free(address)
with raises(RuntimeError, "there is no allocation of "):
    module.python_create_and_map(*handle)
class Index:
    def __index__(self):
        raise ValueError("mine")
with raises(ValueError, "mine"):
    module.python_create_and_map(0, 0, 0, Index())
for device in (-1, 1, 127, 128, 1 << 30):
    assert malloc(1, device) is None
    words = "cuDeviceGet" if 0 < device < 128 else "there is no device"
    assert reported.pop().startswith("RuntimeError: " + words), device
assert (left(), reported) == (NOTHING, [])
"""
    run(site, driver, code)


def test_names_and_signatures_of_the_module(site: Path) -> None:
    code = """
import inspect
print(sorted(name for name in dir(module) if not name.startswith("__")))
print(inspect.signature(module.python_create_and_map))
"""
    names = [
        "copy_to_device",
        "copy_to_host",
        "init_module",
        "python_create_and_map",
        "python_unmap_and_release",
    ]
    assert run(site, None, code) == f"{names}\n(device, size, d_mem, p_handle)\n"
