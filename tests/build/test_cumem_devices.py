# SPDX-License-Identifier: Apache-2.0
"""The memory allocator with different devices and drivers, and without a driver."""

from __future__ import annotations

import ctypes.util
from typing import TYPE_CHECKING

import pytest
from cumem_build import (  # noqa: F401 - fixtures
    allocator_site,
    build_driver,
    counting_driver,
    one_device,
    run,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_the_current_context_is_restored(site: Path, driver: Path) -> None:
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
    run(site, driver, code, FAKE_GPU_DEVICES="2")


@pytest.mark.parametrize(("attributes", "rdma"), [("102=1", 0), ("102=1,110=1", 1)])
def test_memory_is_open_to_network_cards_where_the_device_can(
    site: Path, driver: Path, attributes: str, rdma: int
) -> None:
    run(
        site,
        driver,
        f"init()\nfree(malloc(1))\nassert count('rdma') == {rdma} and not reported",
        FAKE_GPU_ATTRIBUTES=attributes,
    )


def test_a_driver_that_knows_no_network_cards(site: Path, driver: Path) -> None:
    code = (
        "init()\nfail('cuDeviceGetAttribute', 1, after=1)\nfree(malloc(1))\n"
        "assert count('rdma') == 0 and not reported"
    )
    run(site, driver, code, FAKE_GPU_ATTRIBUTES="102=1,110=1")


def test_a_device_without_virtual_memory(site: Path, driver: Path) -> None:
    code = (
        "init()\nassert malloc(1) is None\nsaid('device 0 has no virtual memory management')\n"
        "assert left() == NOTHING"
    )
    run(site, driver, code, FAKE_GPU_ATTRIBUTES="102=0")


def test_a_driver_that_finds_no_device(site: Path, driver: Path) -> None:
    code = """
init()
assert malloc(1) is None
said("RuntimeError: cuInit: no CUDA-capable device is detected (CUDA_ERROR_NO_DEVICE, 100)")
import os
os.environ["FAKE_GPU_INIT"] = "0"
free(malloc(1))
assert not reported, "a driver that comes later is found"
"""
    run(site, driver, code, FAKE_GPU_INIT="100")


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
