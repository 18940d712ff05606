# SPDX-License-Identifier: Apache-2.0
"""Locks for folders and files that builds share.

A lock belongs to this process and to the supervisors of its children: ``children`` passes them the
descriptors of :func:`held`. If this process is killed, the folder stays locked until its last child
has ended. The children themselves do not get the descriptors. Otherwise the server of a compiler
cache, which outlives the build, would keep the lock.
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
    """Open a lock file for the duration of the block, and release its lock at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    _HELD.append(handle)
    try:
        yield handle
    finally:
        _HELD.remove(handle)
        # Closing is not enough: a supervisor has the same open file description.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


@contextmanager
def exclusive(folder: Path, name: str) -> Iterator[None]:
    """Hold ``folder/.lock`` for the duration of the block.

    The kernel releases the lock when its last holder ends, so a killed build leaves nothing to
    clean up. This module uses only the standard library, because pip's build environments have
    nothing else.

    Raises:
        BusyError: another process holds it. Waiting would hide a second build that was started by
            mistake.
    """
    with _opened(folder / ".lock") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusyError(
                f"another process is writing to {name} ({folder})",
                expected="one build at a time",
                remedy="wait until it has ended, or choose another folder",
            ) from error
        yield


@contextmanager
def waiting(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Wait for the lock file ``path``, and hold it for the duration of the block.

    Args:
        path: the lock file. It is created if it is missing and is not removed (see
            :func:`transient`).
        shared: share the lock with other processes that also ask for a shared lock.
    """
    with _opened(path) as handle:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextmanager
def unused(path: Path, name: str) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` for the duration of the block, without waiting.

    Raises:
        BusyError: another process holds the lock, exclusively or shared.
    """
    with _opened(path) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusyError(
                f"another process uses {name} ({path.parent})", remedy="wait until it has ended"
            ) from error
        yield


#: How often the lock file may disappear between opening and locking it. Each time, another process
#: held the lock and ended in between.
_ATTEMPTS = 100


def _is_at(handle: int, path: Path) -> bool:
    """Whether ``path`` still names the open file."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def transient(path: Path, name: str) -> Iterator[None]:
    """As :func:`unused`, with a lock file that is removed at the end.

    Only the holder of the lock removes the file. A process that gets the lock checks that ``path``
    still names its file. If the file was removed after the process opened it, the process opens the
    new one. A file with content is not removed: this library did not write it.

    Raises:
        BusyError: another process holds the lock.
    """
    with ExitStack() as held:
        for attempt in range(_ATTEMPTS):
            with ExitStack() as opening:
                try:
                    handle = opening.enter_context(_opened(path))
                except FileNotFoundError:
                    # Another process removed the folder after this one had created it.
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
        raise BusyError(
            f"another process uses {name} ({path.parent})", remedy="wait until it has ended"
        )


_POLL_SECONDS = 0.1


def _try(handle: int, operation: int) -> bool:
    try:
        fcntl.flock(handle, operation | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def shared(
    path: Path, name: str, *, patience: float, say: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold a shared lock on ``path`` for the duration of the block.

    Args:
        path: the lock file.
        name: the name of the locked thing in messages.
        patience: how many seconds to wait for a process that holds it exclusively.
        say: called with one message if the lock has to be waited for.

    Raises:
        BusyError: another process still holds it exclusively after that time.
    """
    with _opened(path) as handle:
        end, said = time.monotonic() + patience, False
        while not _try(handle, fcntl.LOCK_SH):
            if time.monotonic() >= end:
                raise BusyError(f"another process holds {name}", remedy="wait until it has ended")
            if say is not None and not said:
                say(f"waiting for another process that holds {name}")
                said = True
            time.sleep(_POLL_SECONDS)
        yield


@contextmanager
def turn(path: Path, name: str, *, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` for the duration of the block; wait if necessary.

    The other process does the same work. The kernel releases a lock when its holder ends, so the
    wait ends at the latest with the other process.

    Args:
        path: the lock file.
        name: the product of the work, in the message.
        say: called with one message if the lock has to be waited for.
    """
    with _opened(path) as handle:
        if not _try(handle, fcntl.LOCK_EX):
            if say is not None:
                say(f"waiting for another process that makes {name}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
