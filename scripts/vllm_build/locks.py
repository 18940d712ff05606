# SPDX-License-Identifier: Apache-2.0
"""One writer at a time for a folder that builds share."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vllm_build.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


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
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusyError(f"another process uses {what} ({path.parent})", remedy="wait for it to end") from error
        yield
    finally:
        os.close(handle)


_POLL_SECONDS = 0.1


def _try(handle: int, operation: int) -> bool:
    try:
        fcntl.flock(handle, operation | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def shared(path: Path, what: str, *, patience: float, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock file ``path`` together with any number of others for the duration of the block.

    Args:
        path: the lock file.
        what: what it is for, in messages.
        patience: for how many seconds a process that holds it alone is waited for.
        say: gets one message when there is something to wait for.

    Raises:
        BusyError: another process still holds it alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        end, said = time.monotonic() + patience, False
        while not _try(handle, fcntl.LOCK_SH):
            if time.monotonic() >= end:
                raise BusyError(f"another process holds {what}", remedy="wait for it to end")
            if say is not None and not said:
                say(f"waiting for another process that holds {what}")
                said = True
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(handle)


@contextmanager
def turn(path: Path, what: str, *, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock file ``path`` alone for the duration of the block, after waiting for the process that does the same work.

    The kernel drops a lock with the process that holds it, so the wait ends with the other process at the latest.

    Args:
        path: the lock file.
        what: what is done under it, in the message.
        say: gets one message when there is something to wait for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _try(handle, fcntl.LOCK_EX):
            if say is not None:
                say(f"waiting for another process that makes {what}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
