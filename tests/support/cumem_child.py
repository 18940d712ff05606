# SPDX-License-Identifier: Apache-2.0
"""Names for the programs that test the allocator: the module, the driver, and callbacks."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from typing import TYPE_CHECKING, Any

from vllm import cumem_allocator as module

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
#: The driver's counters when no memory is allocated.
NOTHING = {"ranges": 0, "mapped": 0, "physical": 0, "bytes": 0}

library = ctypes.CDLL(module.__file__)
library.my_malloc.argtypes = [ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]
library.my_malloc.restype = ctypes.c_void_p
library.my_free.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]
library.my_free.restype = None

driver: Any = None
with contextlib.suppress(OSError):
    # Its symbols stay local, as those of a driver that torch loads.
    driver = ctypes.CDLL(os.environ.get("FAKE_GPU_LIBRARY", "none"))
    driver.fake_count.restype = ctypes.c_long
    driver.fake_malloc_in_thread.restype = ctypes.c_void_p
    driver.fake_malloc_in_thread.argtypes = [ctypes.c_void_p, ctypes.c_long]
    driver.fake_give.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    if hasattr(driver, "cuCtxSetCurrent"):
        driver.cuCtxSetCurrent.argtypes = [ctypes.c_void_p]

#: The driver's calls that tests for several devices name.
UNMAP, TO_HOST, TO_DEVICE = (
    ("hipMemUnmap", "hipMemcpy", "hipMemcpy")
    if hasattr(driver, "hipMemUnmap")
    else ("cuMemUnmap", "cuMemcpyDtoH", "cuMemcpyHtoD")
)

#: The name of an allocation that does not exist.
UNKNOWN_HANDLE = (0, 1, 2, [(3, 1)] if hasattr(driver, "hipMemUnmap") else 3)

#: An allocation: device, size, address, and its handle: a number (CUDA) or a list (ROCm).
Handle = tuple[int, int, int, Any]
#: Address -> arguments of the callback.
known: dict[int, Handle] = {}
#: Exceptions that could not be raised, as text.
reported: list[str] = []


def hook(seen: Any) -> None:
    assert callable(seen.object) or seen.object == "vllm.cumem_allocator", (
        "the source is the module or a callback"
    )
    reported.append(f"{type(seen.exc_value).__name__}: {seen.exc_value}")


sys.unraisablehook = hook


def on_malloc(handle: Handle) -> None:
    known[handle[2]] = handle


def on_free(address: int) -> Handle:
    return known.pop(address)


def init() -> None:
    module.init_module(on_malloc, on_free)


def malloc(size: int, device: int = 0) -> Any:
    return library.my_malloc(size, device, None)


def free(address: int) -> None:
    library.my_free(address, 0, 0, None)


def fail(call: str, result: int = 999, after: int = 0) -> None:
    driver.fake_fail(call.encode(), after, result)


def count(what: str) -> int:
    number: int = driver.fake_count(what.encode())
    return number


def left() -> dict[str, int]:
    return {what: count(what) for what in NOTHING}


def read(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


def write(address: int, data: bytes) -> None:
    ctypes.memmove(address, data, len(data))


@contextlib.contextmanager
def raises(error: type[BaseException], words: str) -> Iterator[None]:
    caught, text = None, ""
    try:
        yield
    except error as raised:
        # Not the exception itself, which keeps the frames that it passed alive.
        caught, text = type(raised), str(raised)
    assert caught is error, f"{caught}: {text}, expected {error.__name__}: {words}"
    assert words in text, text


def said(words: str) -> None:
    """Require that exactly one exception with these words was reported since the last call."""
    assert len(reported) == 1, reported
    assert words in reported.pop(), words
