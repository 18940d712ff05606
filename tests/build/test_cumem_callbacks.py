# SPDX-License-Identifier: Apache-2.0
"""The memory allocator's callbacks into Python, with threads and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cumem_build import DRIVERS, allocator_site, counting_driver, run  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=DRIVERS)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


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
module.init_module(gives_back, lambda address: known_twice.append(address) or UNKNOWN_HANDLE)
assert malloc(1) is None
assert f"returned another allocation: {UNKNOWN_HANDLE}" in reported[0]
assert reported[1:] == ["KeyError: 'mine'"]
reported.clear()
assert (left(), len(known_twice)) == (NOTHING, 1)
for on_end, words in (
    (broken, "ValueError: "),
    (
        lambda address: None,
        "TypeError: the result of the callback for freed memory: expected 4 values",
    ),
    (lambda address: ("a",) * 4, "TypeError: "),
    (lambda address: (-1,) * 4, "OverflowError: "),
    (lambda: None, "TypeError: "),
):
    module.init_module(on_malloc, on_end)
    address = malloc(1)
    free(address)
    said(words)
    assert left() == NOTHING, words
"""
    run(site, driver, code)


def test_callbacks_are_referenced_and_released(site: Path, driver: Path) -> None:
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


def test_a_pending_exception_is_not_lost(site: Path, driver: Path) -> None:
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
driver.fake_hold(UNMAP.encode())
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


def test_memory_that_is_freed_after_python_has_ended(site: Path, driver: Path) -> None:
    code = """
module.init_module(on_malloc, lambda address: print("never"))
driver.fake_give(ctypes.cast(library.my_free, ctypes.c_void_p), malloc(1))
driver.fake_free_at_exit()
"""
    assert run(site, driver, code) == "left at exit: 0\n"
