# SPDX-License-Identifier: Apache-2.0
"""One writer at a time for a folder that builds share."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from vllm_build.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def exclusive(folder: Path, what: str) -> Iterator[None]:
    """Hold ``folder/.lock`` for the duration of the block.

    The kernel drops the lock with the process, so a killed build leaves nothing to clean up.

    Raises:
        BusyError: another process holds it; waiting would hide a second build that runs by mistake.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BusyError(
            f"another process is writing to {what} ({folder})",
            expected="one build at a time",
            remedy="wait for it to end, or choose another folder",
        ) from error
    try:
        yield
    finally:
        lock.release()
