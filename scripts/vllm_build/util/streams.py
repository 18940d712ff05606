# SPDX-License-Identifier: Apache-2.0
"""Handles standard streams that the caller closed (``>&-``) or that can no longer be written."""

from __future__ import annotations

import contextlib
import os
import sys

_READ, _WRITE = os.O_RDONLY, os.O_WRONLY


def open_missing() -> None:
    """Open the closed standard descriptors on the null device.

    Otherwise the next file to be opened would get one of these numbers, and programs would write
    into it. Messages to a closed stderr are dropped, as the caller wants. Writing to a closed
    stdout still fails, so that no answer is lost silently.

    Raises:
        OSError: the machine has no null device.
    """
    # In this order: open() returns the lowest free number.
    for number, flags in ((0, _READ), (1, _READ), (2, _WRITE)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened == number:
                os.set_inheritable(number, True)
            else:
                os.dup2(opened, number)
                os.close(opened)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            # closefd=False: the descriptor stays open until the process ends.
            stream = open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def discard() -> None:
    """Redirect stdout and stderr to the null device if they cannot be written.

    Otherwise the interpreter would try at its end to write the rest of their buffers.
    """
    null = os.open(os.devnull, _WRITE)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
            continue
        with contextlib.suppress(OSError, ValueError):
            os.dup2(null, stream.fileno())
    os.close(null)
