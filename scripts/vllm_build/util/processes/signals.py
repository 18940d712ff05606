# SPDX-License-Identifier: Apache-2.0
"""Signals that end a build arrive as one exception, so that ``finally`` blocks run, children are ended and temporary files go.

The first SIGINT, SIGTERM, SIGHUP or SIGQUIT raises :class:`Interrupted` in the main thread. The
second kills what still runs without waiting for it to end by itself; the third ends this process at
once, and the children's supervisors see that (see ``supervisor``).
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_LOOK_SECONDS = 0.5
#: A terminal's Ctrl-C and Ctrl-\, a batch system's or `timeout`'s request, a closed terminal.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end.

    As a ``KeyboardInterrupt`` it passes ``except Exception``, and asyncio knows it.

    Attributes:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number

    @property
    def status(self) -> int:
        """The exit status: 128 plus the signal's number, as shells report it."""
        return 128 + self.number

    def document(self) -> dict[str, object]:
        """What ``--json`` says of it, in the form of every other failure."""
        return {
            "error": "Interrupted",
            "exit_code": self.status,
            "message": str(self),
            "expected": None,
            "remedy": "start the command again",
        }


class _Handler:
    """What has arrived so far, and whether it may be raised now."""

    def __init__(self) -> None:
        self.installed = False
        self.settled = False
        self.received = 0
        self.first = 0
        self.deferrals = 0
        self.pending: int | None = None
        self.hurry: Callable[[], None] = lambda: None

    def __call__(self, number: int, _: FrameType | None) -> None:
        self.received += 1
        if self.received == 1:
            self.first = number
            if self.settled:
                return
            if self.deferrals:
                self.pending = number
            else:
                raise Interrupted(number)
        elif self.received == 2:  # noqa: PLR2004 - the second one
            self.hurry()
        else:
            # With the status of the first, which is what ended the build: whoever closes a terminal
            # sends SIGHUP, and SIGTERM after it.
            os._exit(128 + self.first)


_handler = _Handler()


def on_second(action: Callable[[], None]) -> None:
    """Call ``action`` when a second signal arrives."""
    _handler.hurry = action


def install() -> None:
    """Raise :class:`Interrupted` from now on, for the rest of this process: for its entry point.

    Raises:
        Interrupted: a signal was waiting.
    """
    _handler.installed = True
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handler)
    # Those that arrived while the command began (``__main__``) arrive now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def settle() -> None:
    """Raise nothing any more: how this process ends has been decided, and is being written down."""
    _handler.settled = True


def ignore() -> None:
    """Let nothing but SIGKILL end this process before its own end, which is at hand.

    The interpreter puts back the default actions before it has ended, and a signal would still
    change the exit status.
    """
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def raised() -> Iterator[None]:
    """Raise :class:`Interrupted` in the block when a signal arrives.

    Inside another such block, and outside the main thread, it changes nothing. Signals that the
    caller ignores (``nohup``, a shell's background jobs) stay ignored.
    """
    if _handler.installed or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    caught = [number for number, action in before.items() if action is not signal.SIG_IGN]
    _handler.installed, _handler.settled, _handler.received, _handler.pending = True, False, 0, None
    try:
        for number in caught:
            signal.signal(number, _handler)
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])
        _handler.installed = False


@contextmanager
def ending(what: str) -> Iterator[None]:
    """For a library call of a program that is not ours, such as pip or ``setup.py``: a signal ends that program with its documented status.

    Where ``raised`` is in force already, its owner does that.

    Raises:
        SystemExit: with 128 and the signal's number. KeyboardInterrupt: Ctrl-C, as everywhere in
            Python.
    """
    outer = _handler.installed
    with raised():
        try:
            yield
        except Interrupted as interrupt:
            if outer:
                raise
            if interrupt.number == signal.SIGINT:
                raise KeyboardInterrupt from None  # the interpreter knows the exact class only
            _say_end(what, interrupt)
            raise SystemExit(interrupt.status) from None
        except SystemExit as end:
            # setuptools turns every KeyboardInterrupt into its own end, with status 1.
            if outer or not isinstance(end.__context__, Interrupted):
                raise
            _say_end(what, end.__context__)
            raise SystemExit(end.__context__.status) from None


def _say_end(what: str, interrupt: Interrupted) -> None:
    from vllm_build.util.redaction import say  # noqa: PLC0415 -- the command line installs the handlers before it imports more

    with suppress(OSError):
        say(f"\nerror: {what} was {interrupt}\n")


@contextmanager
def ending_with_parent() -> Iterator[None]:
    """Send SIGTERM to this process when the one that started it has gone, for hooks whose only purpose is the answer to that process.

    By looking now and then, as the kernel's own PR_SET_PDEATHSIG means the thread that started this
    process: one of a front end's pool may end long before the front end.
    """
    parent, done = os.getppid(), threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_SECONDS):
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


@contextmanager
def deferred() -> Iterator[None]:
    """Hold a signal back until the end of the block: for steps that must not be cut in two, such as starting a child and noting it down."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _handler.deferrals += 1
    try:
        yield
    finally:
        _handler.deferrals -= 1
        if not _handler.deferrals and _handler.pending is not None:
            number, _handler.pending = _handler.pending, None
            raise Interrupted(number)
