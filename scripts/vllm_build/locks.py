# SPDX-License-Identifier: Apache-2.0
"""One writer at a time for a folder that builds share."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vllm_build.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_HELD: list[int] = []


def held() -> tuple[int, ...]:
    """The descriptors of locks that children get: what they write stays locked until they end, even when this process is killed."""
    return tuple(_HELD)


@contextmanager
def exclusive(folder: Path, what: str) -> Iterator[None]:
    """Hold ``folder/.lock`` for the duration of the block.

    The kernel drops the lock with the process, so a killed build leaves nothing to clean up. The standard library alone: pip's build
    environments have nothing else.

    Raises:
        BusyError: another process holds it; waiting would hide a second build that runs by mistake.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Not inherited by children (PEP 446): a compiler cache's server that outlives the build must not keep the lock.
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusyError(
                f"another process is writing to {what} ({folder})",
                expected="one build at a time",
                remedy="wait for it to end, or choose another folder",
            ) from error
        yield
    finally:
        os.close(handle)


@contextmanager
def waiting(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock file ``path`` for the duration of the block, after waiting for whoever holds it.

    Args:
        path: the lock file, made when it is not there and never removed: its removal would let two processes hold it.
        shared: any number may hold it so at once, but none while another holds it alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def unused(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file ``path`` alone for the duration of the block, and do not wait for it.

    Raises:
        BusyError: another process holds it, alone or shared.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    _HELD.append(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusyError(f"another process uses {what} ({path.parent})", remedy="wait for it to end") from error
        yield
    finally:
        _HELD.remove(handle)
        # Not by closing alone: a child that got the descriptor has the same open file description.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)
