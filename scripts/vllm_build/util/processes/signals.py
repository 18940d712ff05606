# SPDX-License-Identifier: Apache-2.0
"""Turns the signals that end a build into an exception.

``finally`` blocks then run, end the children and remove temporary files. The first SIGINT, SIGTERM,
SIGHUP or SIGQUIT raises :class:`Interrupted` in the main thread. The second kills the children
without waiting for them. The third ends this process at once, and the children's supervisors then
end the children (see ``supervisor``).
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
#: Ctrl-C (SIGINT) and Ctrl-\ (SIGQUIT) in a terminal, the request of a batch system or of `timeout`
#: (SIGTERM), and a closed terminal (SIGHUP).
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end.

    As a ``KeyboardInterrupt`` it is not caught by ``except Exception``, and asyncio handles it.

    Attributes:
        number: the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number

    @property
    def status(self) -> int:
        """The exit status: 128 plus the signal's number, as shells report it."""
        return 128 + self.number

    def document(self) -> dict[str, object]:
        """The failure as the ``--json`` document has it."""
        return {
            "error": "Interrupted",
            "exit_code": self.status,
            "message": str(self),
            "expected": None,
            "remedy": "run the command again",
        }


class _Handler:
    """The signals that have arrived so far, and whether they may raise an exception now."""

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
            # The status is that of the first signal, which ended the build. Closing a terminal
            # sends SIGHUP and then SIGTERM.
            os._exit(128 + self.first)


_handler = _Handler()


def on_second(action: Callable[[], None]) -> None:
    """Call ``action`` when a second signal arrives."""
    _handler.hurry = action


def install() -> None:
    """Raise :class:`Interrupted` for signals until this process ends; its entry point calls this.

    Raises:
        Interrupted: a signal was pending.
    """
    _handler.installed = True
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handler)
    # ``__main__`` blocked the signals. Pending ones arrive now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def settle() -> None:
    """Raise no exception for later signals: the result is decided and is being written."""
    _handler.settled = True


def ignore() -> None:
    """Ignore all signals except SIGKILL while this process ends.

    The interpreter restores the default actions before it has ended, so a signal could still change
    the exit status.
    """
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def raised() -> Iterator[None]:
    """Raise :class:`Interrupted` in the block when a signal arrives.

    This has no effect inside another such block or outside the main thread. Signals that the caller
    ignores (``nohup``, a shell's background jobs) stay ignored.
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
    """End the process with the documented status when a signal arrives in the block.

    This is for library calls by other programs, such as pip or ``setup.py``. Inside a ``raised``
    block it leaves the exception to that block.

    Args:
        what: the interrupted work, for the message.

    Raises:
        SystemExit: a signal arrived; the status is 128 plus its number.
        KeyboardInterrupt: Ctrl-C, as everywhere in Python.
    """
    outer = _handler.installed
    with raised():
        try:
            yield
        except Interrupted as interrupt:
            if outer:
                raise
            if interrupt.number == signal.SIGINT:
                raise KeyboardInterrupt from None  # the interpreter handles only the exact class
            _say_end(what, interrupt)
            raise SystemExit(interrupt.status) from None
        except SystemExit as end:
            # setuptools turns every KeyboardInterrupt into a SystemExit with status 1.
            if outer or not isinstance(end.__context__, Interrupted):
                raise
            _say_end(what, end.__context__)
            raise SystemExit(end.__context__.status) from None


def _say_end(what: str, interrupt: Interrupted) -> None:
    from vllm_build.util.redaction import say  # noqa: PLC0415 -- handlers are installed first

    with suppress(OSError):
        say(f"\nerror: {what} was {interrupt}\n")


@contextmanager
def ending_with_parent() -> Iterator[None]:
    """Send SIGTERM to this process when its parent has ended.

    This is for hooks that only compute a result for the parent. A thread polls, because the
    kernel's PR_SET_PDEATHSIG reacts to the end of the thread that started this process. In a front
    end with a thread pool, that thread may end long before the front end.
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
    """Defer a signal until the end of the block.

    This is for steps that must not be interrupted, such as starting a child and recording it.
    """
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
