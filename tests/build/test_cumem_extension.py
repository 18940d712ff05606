# SPDX-License-Identifier: Apache-2.0
"""The memory allocator's compiled part, against a driver that keeps CUDA's rules and counts what it has handed out."""

from __future__ import annotations

import ctypes.util
from typing import TYPE_CHECKING

import pytest
from cumem_build import build_driver, build_site, run

from vllm_build.checks import elf, library_audit, link_check

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="module")
def library(site: Path) -> Path:
    (found,) = (site / "vllm").glob("cumem_allocator.*so")
    return found


def test_it_asks_for_nothing_but_the_interpreter_and_the_system(library: Path) -> None:
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


def test_it_shows_its_entry_point_and_torch_s_two(library: Path) -> None:
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


def test_sizes_are_rounded_up_to_what_the_device_deals_in(site: Path, driver: Path) -> None:
    code = """
init()
for size, whole in ((1, 1), (MIB - 1, 1), (MIB, 1), (MIB + 1, 2), (5 * MIB, 5)):
    address = malloc(size)
    assert known[address][1] == whole * MIB == count("bytes"), size
    free(address)
assert (left(), reported) == (NOTHING, [])
"""
    run(site, driver, code, FAKE_CUDA_GRANULARITY=str(1 << 20))


def test_sizes_that_are_none(site: Path, driver: Path) -> None:
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


def test_freeing_goes_on_where_it_can_and_says_what_failed(site: Path, driver: Path) -> None:
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
    run(site, driver, code, FAKE_CUDA_MEMORY=str(10 << 20))


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
        with raises(TypeError, f"{function.__name__}: expected {4 + len(more)} integers"):
            function(*wrong)
    for wrong in (1.0, "1", None):
        with raises(TypeError, "integer"):
            function(device, size, wrong, place, *more)
    for wrong in (-1, 1 << 64, -(1 << 70)):
        with raises(OverflowError, ""):
            function(device, wrong, address, place, *more)
    for wrong in ((1, size, address, place), (0, size + 1, address, place), (0, size, address + 8, place), (0, size, address, place + 8),
                  (0, 0, 0, 0), ((1 << 64) - 1,) * 4):
        with raises(RuntimeError, "there is no allocation of "):
            function(*wrong, *more)
with raises(RuntimeError, "is mapped already"):
    module.python_create_and_map(*handle)
module.python_unmap_and_release(*handle)
for function, more in ((module.python_unmap_and_release, ()), (module.copy_to_host, (host,)), (module.copy_to_device, (host,))):
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
    assert reported.pop().startswith("RuntimeError: " + ("cuDeviceGet" if 0 < device < 128 else "there is no device")), device
assert (left(), reported) == (NOTHING, [])
"""
    run(site, driver, code)


def test_callbacks_that_are_missing_or_fail(site: Path, driver: Path) -> None:
    code = """
assert malloc(1) is None
said("init_module has not been called")
def broken(*arguments):
    raise ValueError(arguments)
module.init_module(broken, on_free)
assert malloc(1) is None
assert reported.pop().startswith("ValueError: ((0, 2097152, ")
assert left() == NOTHING
def gives_back(handle):
    module.python_unmap_and_release(*handle)
    free(handle[2])
    raise KeyError("mine")
known_twice = []
module.init_module(gives_back, lambda address: known_twice.append(address) or (0, 0, 0, 0))
assert malloc(1) is None
assert "returned another allocation: (0, 0, 0, 0)" in reported[0] and "KeyError: 'mine'" == reported[1] and len(reported) == 2
reported.clear()
assert (left(), len(known_twice)) == (NOTHING, 1)
for on_end, words in (
    (broken, "ValueError: "), (lambda address: None, "TypeError: the result of the callback for freed memory: expected 4 integers"),
    (lambda address: ("a",) * 4, "TypeError: "), (lambda address: (-1,) * 4, "OverflowError: "), (lambda: None, "TypeError: "),
):
    module.init_module(on_malloc, on_end)
    address = malloc(1)
    free(address)
    said(words)
    assert left() == NOTHING, words
"""
    run(site, driver, code)


def test_callbacks_are_held_and_let_go(site: Path, driver: Path) -> None:
    code = """
import gc, weakref
def one(handle): known[handle[2]] = handle
def two(address): return known.pop(address)
seen = weakref.ref(one), weakref.ref(two)
module.init_module(one, two)
del one, two
gc.collect()
address = malloc(1)
free(address)
assert (left(), reported) == (NOTHING, [])
before = sys.getrefcount(on_malloc), sys.getrefcount(on_free)
init()
gc.collect()
assert (seen[0](), seen[1]()) == (None, None)
for _ in range(200):
    init()
    free(malloc(1))
assert (sys.getrefcount(on_malloc), sys.getrefcount(on_free)) == (before[0] + 1, before[1] + 1)
"""
    run(site, driver, code)


def test_an_exception_on_its_way_is_not_lost(site: Path, driver: Path) -> None:
    code = """
new = ctypes.pythonapi.PyCapsule_New
new.argtypes, new.restype = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p], ctypes.py_object
def tensor():
    address = malloc(1)
    driver.fake_give(ctypes.cast(library.my_free, ctypes.c_void_p), address)
    return new(address, None, ctypes.cast(driver.fake_free_given, ctypes.c_void_p))
def fails():
    raise LookupError("mine")
def broken(address):
    raise ValueError("the callback's")
for on_end, words in ((on_free, []), (broken, ["ValueError: the callback's"])):
    module.init_module(on_malloc, on_end)
    with raises(LookupError, "mine"):
        print(tensor(), fails())  # the tensor is on the interpreter's stack, which is cleared
    assert (left(), reported) == (NOTHING, words)
"""
    run(site, driver, code)


def test_threads(site: Path, driver: Path) -> None:
    code = """
import threading
init()
outside = driver.fake_malloc_in_thread(ctypes.cast(library.my_malloc, ctypes.c_void_p), MIB)
assert known[outside][1] == 2 * MIB
def work(number):
    for turn in range(40):
        address = malloc(MIB)
        handle = known[address]
        write(address, bytes([number]) * 64)
        if turn % 3 == 0:
            module.python_unmap_and_release(*handle)
        if turn % 6 == 0:
            module.python_create_and_map(*handle)
        if turn % 3:
            assert read(address, 64) == bytes([number]) * 64
        free(address)
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert list(known) == [outside]
free(outside)
assert (left(), reported) == (NOTHING, [])
"""
    run(site, driver, code)


def test_the_driver_works_without_the_gil_and_for_one_thread(site: Path, driver: Path) -> None:
    code = """
import threading, time
init()
address = malloc(1)
handle = known[address]
driver.fake_hold(b"cuMemUnmap")
first = threading.Thread(target=module.python_unmap_and_release, args=handle)
first.start()
while not driver.fake_waiting():
    time.sleep(0.001)
with raises(RuntimeError, "another thread is busy with the allocation"):
    module.python_unmap_and_release(*handle)
second = threading.Thread(target=free, args=(address,))
second.start()
time.sleep(0.05)
assert second.is_alive() and known, "it waits for the first"
driver.fake_hold(b"")
first.join()
second.join()
assert (left(), known, reported) == (NOTHING, {}, [])
"""
    run(site, driver, code)


def test_the_current_context_is_what_it_was(site: Path, driver: Path) -> None:
    code = """
init()
def current():
    found = ctypes.c_void_p()
    driver.cuCtxGetCurrent(ctypes.byref(found))
    return found.value
contexts = []
for device in (0, 1):
    found = ctypes.c_void_p()
    driver.cuInit(0)
    driver.cuDevicePrimaryCtxRetain(ctypes.byref(found), device)
    contexts.append(found.value)
for mine in (None, *contexts):
    driver.cuCtxSetCurrent(mine)
    for device in (0, 1):
        address = malloc(1, device)
        handle = known[address]
        assert handle[0] == device
        module.python_unmap_and_release(*handle)
        module.python_create_and_map(*handle)
        free(address)
        assert current() == mine
    assert malloc(1 << 40) is None
    assert current() == mine
assert (left(), reported, count("retained")) == (NOTHING, [], 4), "each device's once by us"
assert count("synchronised") == 12
"""
    run(site, driver, code, FAKE_CUDA_DEVICES="2")


@pytest.mark.parametrize(("attributes", "rdma"), [("102=1", 0), ("102=1,110=1", 1)])
def test_memory_is_open_to_network_cards_where_the_device_can(
    site: Path, driver: Path, attributes: str, rdma: int
) -> None:
    run(
        site,
        driver,
        f"init()\nfree(malloc(1))\nassert count('rdma') == {rdma} and not reported",
        FAKE_CUDA_ATTRIBUTES=attributes,
    )


def test_a_driver_that_knows_no_network_cards(site: Path, driver: Path) -> None:
    code = (
        "init()\nfail('cuDeviceGetAttribute', 1, after=1)\nfree(malloc(1))\n"
        "assert count('rdma') == 0 and not reported"
    )
    run(site, driver, code, FAKE_CUDA_ATTRIBUTES="102=1,110=1")


def test_a_device_without_virtual_memory(site: Path, driver: Path) -> None:
    code = (
        "init()\nassert malloc(1) is None\nsaid('device 0 has no virtual memory management')\n"
        "assert left() == NOTHING"
    )
    run(site, driver, code, FAKE_CUDA_ATTRIBUTES="102=0")


def test_a_driver_that_finds_no_device(site: Path, driver: Path) -> None:
    code = """
init()
assert malloc(1) is None
said("RuntimeError: cuInit: no CUDA-capable device is detected (CUDA_ERROR_NO_DEVICE, 100)")
import os
os.environ["FAKE_CUDA_INIT"] = "0"
free(malloc(1))
assert not reported, "a driver that comes later is found"
"""
    run(site, driver, code, FAKE_CUDA_INIT="100")


@pytest.mark.parametrize("entry_points", [0, 2])
def test_a_driver_that_is_too_old(site: Path, tmp_path: Path, entry_points: int) -> None:
    old = build_driver(tmp_path, "-DWITHOUT_CREATE", f"-DGET_PROC_ADDRESS={entry_points}")
    run(
        site,
        old,
        "init()\nassert malloc(1) is None\nsaid('libcuda.so.1 has no cuMemCreate: virtual memory "
        "management needs')",
    )


WITHOUT_DRIVER = """
init()
assert malloc(1) is None
said("RuntimeError: the NVIDIA driver is not installed: cannot load libcuda.so.1 (")
with raises(RuntimeError, "there is no allocation"):
    module.python_create_and_map(0, 1, 2, 3)
"""


@pytest.mark.skipif(
    ctypes.util.find_library("cuda") is not None, reason="this machine has a driver"
)
def test_without_a_driver(site: Path) -> None:
    run(site, None, WITHOUT_DRIVER)


def test_with_a_broken_driver(site: Path, tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_text("no library\n")
    run(site, tmp_path, WITHOUT_DRIVER)


def test_memory_that_is_freed_after_python_has_ended(site: Path, driver: Path) -> None:
    code = """
module.init_module(on_malloc, lambda address: print("never"))
driver.fake_give(ctypes.cast(library.my_free, ctypes.c_void_p), malloc(1))
driver.fake_free_at_exit()
"""
    assert run(site, driver, code) == "left at exit: 0\n"


def test_the_module_says_what_it_has(site: Path) -> None:
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
