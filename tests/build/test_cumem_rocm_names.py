# SPDX-License-Identifier: Apache-2.0
"""Allocations of ROCm's memory allocator by name: a list of chunks that Python passes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cumem_build import allocator_site, counting_driver, run  # noqa: F401 - fixtures
from cumem_scripts import SMALL, THREE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def device() -> str:
    return "rocm"


def test_names_of_other_allocations(site: Path, driver: Path) -> None:
    code = """
device, size, _, chunks = handle
host = ctypes.addressof(ctypes.create_string_buffer(10 * MIB))
for function, more in (
    (module.python_create_and_map, ()),
    (module.python_unmap_and_release, ()),
    (module.copy_to_host, (host,)),
    (module.copy_to_device, (host,)),
):
    name = function.__name__
    for wrong in ((), handle[:3], (*handle, *more, 0)):
        with raises(TypeError, f"{name}: expected {4 + len(more)} values: device, size, address"):
            function(*wrong)
    for wrong in (chunks[0][0], None, tuple(chunks), "x"):
        with raises(TypeError, f"{name}: expected a list of chunks, each (handle, size)"):
            function(device, size, address, wrong, *more)
    for wrong in (3, list(chunks[1]), (1,), (1, 2, 3)):
        with raises(TypeError, f"{name}: chunk 1: expected (handle, size)"):
            function(device, size, address, [chunks[0], wrong, chunks[2]], *more)
    with raises(TypeError, "integer"):
        function(device, size, address, [chunks[0], ("a", 1), chunks[2]], *more)
    with raises(OverflowError, ""):
        function(device, size, address, [(1 << 64, 1)], *more)
    one, two, three = chunks
    for wrong in (
        [],
        chunks[:2],
        [*chunks, three],
        [two, one, three],
        [one, one, three],
        [one, two, (three[0], 4 * MIB)],
        [one, two, (three[0] + 8, three[1])],
        [(one[0] + 8, one[1]), two, three],
        [(one[0], size)],
        [(one[0], 0)] * 3,
        [(one[0], (1 << 64) - 1)],
        [(one[0], 2 * MIB), two, three],
    ):
        with raises(RuntimeError, "there is no allocation of "):
            function(device, size, address, wrong, *more)
    for wrong in ((1, size, address), (0, size + 1, address), (0, size, address + 8), (0, 0, 0)):
        with raises(RuntimeError, "there is no allocation of "):
            function(*wrong, chunks, *more)
assert left() == AWAKE
module.init_module(on_malloc, lambda address: (*known.pop(address)[:3], chunks[:2]))
free(address)
said("returned another allocation: (0, 10485760, ")
module.init_module(on_malloc, lambda address: (*known.pop(address)[:3], 1))
free(malloc(1))
said("TypeError: the result of the callback for freed memory: expected a list of chunks")
assert (left(), known) == (NOTHING, {})
"""
    run(site, driver, THREE + code, **SMALL)
