# SPDX-License-Identifier: Apache-2.0
"""The standard streams of a command whose caller closed some of them (``>&-``), and of one that cannot write to them any more."""

from __future__ import annotations

import contextlib
import os
import sys

_READ, _WRITE = os.O_RDONLY, os.O_WRONLY


def open_missing() -> None:
    """Open the standard descriptors that are closed: the next file that is opened would have their number, and programs write to that.

    Messages are lost then, as whoever closes stderr asks for. Writing to stdout fails, as it would
    have: an answer is not lost in silence.

    Raises:
        OSError: the machine has no null device.
    """
    # In this order: what is opened gets the lowest number that is free.
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
            # Not closed by this object: it stays for as long as the process does.
            stream = open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def discard() -> None:
    """Give up on the streams that cannot be written: the interpreter writes what is left in their buffers when it ends."""
    null = os.open(os.devnull, _WRITE)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
            continue
        with contextlib.suppress(OSError, ValueError):
            os.dup2(null, stream.fileno())
    os.close(null)
