# SPDX-License-Identifier: Apache-2.0
"""One writer at a time for a folder that builds share.

A lock belongs to this process and to the supervisors of its children (``children`` hands them the
descriptors of :func:`held`): when this process is killed, the folder stays locked until the last
child has gone. The children themselves do not get the descriptors, or a compiler cache's server,
which outlives the build, would keep the lock.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from vllm_build.util.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_HELD: list[int] = []


def held() -> tuple[int, ...]:
    """The descriptors of all locks that this process holds."""
    return tuple(_HELD)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a lock file for the duration of the block; whatever lock is taken on it ends with the block, in supervisors as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    _HELD.append(handle)
    try:
        yield handle
    finally:
        _HELD.remove(handle)
        # Not by closing alone: a supervisor has the same open file description.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


@contextmanager
def exclusive(folder: Path, what: str) -> Iterator[None]:
    """Hold ``folder/.lock`` for the duration of the block.

    The kernel drops the lock with its last holder, so a killed build leaves nothing to clean up.
    The standard library alone: pip's build environments have nothing else.

    Raises:
        BusyError: another process holds it; waiting would hide a second build that runs by mistake.
    """
    with _opened(folder / ".lock") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusyError(
                f"another process is writing to {what} ({folder})",
                expected="one build at a time",
                remedy="wait for it to end, or choose another folder",
            ) from error
        yield


@contextmanager
def waiting(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock file ``path`` for the duration of the block, after waiting for whoever holds it.

    Args:
        path: the lock file, made when it is not there and not removed here (see :func:`transient`).
        shared: any number may hold it so at once, but none while another holds it alone.
    """
    with _opened(path) as handle:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextmanager
def unused(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file ``path`` alone for the duration of the block, and do not wait for it.

    Raises:
        BusyError: another process holds it, alone or shared.
    """
    with _opened(path) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusyError(
                f"another process uses {what} ({path.parent})", remedy="wait for it to end"
            ) from error
        yield


#: How often a lock file may vanish between two looks: every time, another process has held the lock
#: and ended in the meantime.
_ATTEMPTS = 100


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is still the one that ``path`` names."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def transient(path: Path, what: str) -> Iterator[None]:
    """As :func:`unused`, with a lock file that is removed at the end.

    Whoever removes the file holds its lock, and whoever gets the lock compares the file with what
    ``path`` names then: a process that has opened the file before its removal opens the new one. A
    file with content, which this library did not write, stays.

    Raises:
        BusyError: another process holds it.
    """
    with ExitStack() as held:
        for attempt in range(_ATTEMPTS):
            with ExitStack() as opening:
                try:
                    handle = opening.enter_context(_opened(path))
                except FileNotFoundError:
                    # The folder vanished between its making and the opening: another process has
                    # cleaned up behind itself.
                    if attempt == _ATTEMPTS - 1:
                        raise
                    continue
                if not _try(handle, fcntl.LOCK_EX):
                    break
                if _is_at(handle, path):
                    held.push(opening.pop_all())
                    try:
                        yield
                    finally:
                        if os.fstat(handle).st_size == 0:
                            with suppress(OSError):
                                path.unlink()
                    return
        raise BusyError(f"another process uses {what} ({path.parent})", remedy="wait for it to end")


_POLL_SECONDS = 0.1


def _try(handle: int, operation: int) -> bool:
    try:
        fcntl.flock(handle, operation | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def shared(
    path: Path, what: str, *, patience: float, say: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold the lock file ``path`` together with any number of others for the duration of the block.

    Args:
        path: the lock file.
        what: what it is for, in messages.
        patience: for how many seconds a process that holds it alone is waited for.
        say: gets one message when there is something to wait for.

    Raises:
        BusyError: another process still holds it alone.
    """
    with _opened(path) as handle:
        end, said = time.monotonic() + patience, False
        while not _try(handle, fcntl.LOCK_SH):
            if time.monotonic() >= end:
                raise BusyError(f"another process holds {what}", remedy="wait for it to end")
            if say is not None and not said:
                say(f"waiting for another process that holds {what}")
                said = True
            time.sleep(_POLL_SECONDS)
        yield


@contextmanager
def turn(path: Path, what: str, *, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock file ``path`` alone for the duration of the block, after waiting for the process that does the same work.

    The kernel drops a lock with the process that holds it, so the wait ends with the other process
    at the latest.

    Args:
        path: the lock file.
        what: what is done under it, in the message.
        say: gets one message when there is something to wait for.
    """
    with _opened(path) as handle:
        if not _try(handle, fcntl.LOCK_EX):
            if say is not None:
                say(f"waiting for another process that makes {what}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
