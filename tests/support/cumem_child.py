# SPDX-License-Identifier: Apache-2.0
"""What the programs of tests of the allocator begin with: the module, the driver, and callbacks that remember what they are told."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from typing import TYPE_CHECKING, Any

from vllm import cumem_allocator as module

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
#: What a driver has when nothing is left.
NOTHING = {"ranges": 0, "mapped": 0, "physical": 0, "bytes": 0}

library = ctypes.CDLL(module.__file__)
library.my_malloc.argtypes = [ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]
library.my_malloc.restype = ctypes.c_void_p
library.my_free.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]
library.my_free.restype = None

driver: Any = None
with contextlib.suppress(OSError):
    driver = ctypes.CDLL("libcuda.so.1")
    driver.fake_count.restype = ctypes.c_long
    driver.fake_malloc_in_thread.restype = ctypes.c_void_p
    driver.fake_malloc_in_thread.argtypes = [ctypes.c_void_p, ctypes.c_long]
    driver.fake_give.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    driver.cuCtxSetCurrent.argtypes = [ctypes.c_void_p]

#: Address → what the callback was told.
known: dict[int, tuple[int, int, int, int]] = {}
#: What could not be raised, in words.
reported: list[str] = []


def hook(seen: Any) -> None:
    assert callable(seen.object) or seen.object == "vllm.cumem_allocator", (
        "who it was: the module or a callback"
    )
    reported.append(f"{type(seen.exc_value).__name__}: {seen.exc_value}")


sys.unraisablehook = hook


def on_malloc(handle: tuple[int, int, int, int]) -> None:
    known[handle[2]] = handle


def on_free(address: int) -> tuple[int, int, int, int]:
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
        caught, text = (
            type(raised),
            str(raised),
        )  # not itself: it holds the frames that it has passed
    assert caught is error, f"{caught}: {text}, expected {error.__name__}: {words}"
    assert words in text, text


def said(words: str) -> None:
    """The one thing that was reported since the last question."""
    assert len(reported) == 1, reported
    assert words in reported.pop(), words
