# SPDX-License-Identifier: Apache-2.0
# The compiled module of csrc/allocator. The first four arguments describe one allocation: device,
# size in bytes, address on the device, and handle. The handle is the address of the driver's handle
# on CUDA, and a list of chunks on ROCm, each the address of the driver's handle and the chunk's
# size. `host` is an address in host memory. If the driver refuses a call or the allocation does not
# exist, RuntimeError is raised and nothing has changed.
from collections.abc import Callable
from typing import TypeAlias

_Handle: TypeAlias = int | list[tuple[int, int]]

def init_module(
    malloc_cb: Callable[[tuple[int, int, int, _Handle]], object],
    free_cb: Callable[[int], tuple[int, int, int, _Handle]],
    /,
) -> None: ...
def python_create_and_map(device: int, size: int, d_mem: int, p_handle: _Handle, /) -> None: ...
def python_unmap_and_release(device: int, size: int, d_mem: int, p_handle: _Handle, /) -> None: ...
def copy_to_host(device: int, size: int, d_mem: int, p_handle: _Handle, host: int, /) -> None: ...
def copy_to_device(device: int, size: int, d_mem: int, p_handle: _Handle, host: int, /) -> None: ...
