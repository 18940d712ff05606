# SPDX-License-Identifier: Apache-2.0
"""Starts the engine's programs with a log, and ends them with everything that they started."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: Lines of a log that a message shows: from its end, and from the first sign of a failure on.
LAST_LINES, FIRST_LINES, WIDTH = 30, 8, 300
_FAILURE = re.compile(r"Segfault|Traceback|\bERROR\b|^error: |\w+Error: ")
#: Seconds between SIGTERM and SIGKILL. `vllm-build` waits 5 s for this program.
GRACE = 4.0
#: Ctrl-C in a terminal, and the request of `vllm-build` or of a batch system.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoError(Exception):
    """The engine does not do what the demonstration shows; the message ends with its log."""


class Ended(BaseException):
    """A signal asked this program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


class _Signals:
    """The signal that arrived, and whether it may raise an exception now."""

    def __init__(self) -> None:
        self.deferred = False
        self.pending = 0

    def __call__(self, number: int, _: object) -> None:
        for other in ENDING:
            signal.signal(other, signal.SIG_IGN)
        if self.deferred:
            self.pending = number
        else:
            raise Ended(number)

    @contextmanager
    def later(self) -> Iterator[None]:
        """Raise for a signal at the end of the block.

        For the start of a program, which must not be lost between its first instruction and the
        one that records it.
        """
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False
        if self.pending:
            raise Ended(self.pending)


_signals = _Signals()


def raise_for_signals() -> None:
    """Raise :class:`Ended` for a signal, so that the programs of this one end, too."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _signals)


def last_lines(log: Path) -> str:
    """The end of a log, for a message; before it, the first lines of the failure.

    The engine's processes report a failure one after another, so its cause is often further up.
    """
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    lines = [line if len(line) <= WIDTH else f"{line[:WIDTH]}…" for line in lines]
    end = max(0, len(lines) - LAST_LINES)
    first = next((at for at in range(end) if _FAILURE.search(lines[at])), None)
    shown = lines[end:]
    if first is not None:
        head = lines[first : min(first + FIRST_LINES, end)]
        shown = [*head, *(["…"] if first + FIRST_LINES < end else []), *shown]
    return "\n".join(shown) or "(it printed nothing)"


def _tell(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def end(program: subprocess.Popen[bytes], grace: float = GRACE) -> None:
    """Ask a program to end, kill what is left of its process group, and wait for it."""
    try:
        if program.poll() is None:
            # Only the program itself: it ends its processes in its own order.
            program.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(grace)
    finally:  # also when a signal arrives meanwhile
        _tell(program.pid, signal.SIGKILL)
        program.wait()


@contextmanager
def started(
    command: Sequence[str], env: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program in a process group of its own; the end of the block ends the group.

    Args:
        command: the program and its arguments.
        env: all its variables.
        log: the file for its output.
    """
    with contextlib.ExitStack() as undo:
        with log.open("wb") as stream, _signals.later():
            program = subprocess.Popen(  # type: ignore[call-overload] # since Python 3.11, as vllm
                command,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
            undo.callback(end, program)
        yield program


def failure(command: Sequence[str], what: str, log: Path) -> DemoError:
    """The error for a program that did ``what``."""
    return DemoError(f"{shown(command)} {what}\n{last_lines(log)}")


def run(command: Sequence[str], env: Mapping[str, str], log: Path, limit: float) -> None:
    """Run a program to its end.

    Raises:
        DemoError: it failed, or did not end within ``limit`` seconds.
    """
    with started(command, env, log) as program:
        try:
            status = program.wait(limit)
        except subprocess.TimeoutExpired:
            raise failure(command, f"has not ended after {limit:.0f} s", log) from None
    if status:
        raise failure(command, f"failed (exit status {status})", log)


def shown(command: Sequence[str]) -> str:
    """A command line for a message; this interpreter is ``python`` in it."""
    return " ".join("python" if word == sys.executable else Path(word).name for word in command)
