# SPDX-License-Identifier: Apache-2.0
"""Runs one program for ``children``, and ends all its processes when the build ends.

This file is a program: ``python -I -S``.

A build that is killed (by SIGKILL, or because memory ran out) cannot clean up, and no feature of
the kernel ends a whole tree of processes with its parent. PR_SET_PDEATHSIG is tied to the parent's
thread, is lost at an exec with other privileges, and is not inherited by grandchildren. Process
groups do not cover the tree: Ninja starts every compiler in a new group. A session does: the
program and its descendants stay in the supervisor's session unless they leave it on purpose, as the
servers of compiler caches do, which other builds use too.

The supervisor therefore leads a session and holds one end of a socket; only the build has the other
end. The kernel closes that end when the build ends for any reason, and the supervisor then ends its
session. It also holds the build's locks, as descriptors that the program does not get, so a folder
stays locked until the last process that might write to it has ended.

Arguments:
    the descriptor of the socket; the descriptors of locks (separated by commas, may be empty); the
    program and its arguments

It sends:
    ``S`` when the program has started, or ``E<errno>`` if it cannot be started

It reads:
    ``T``: end the session, with time to clean up; ``K``: kill it; end of file: the build has ended,
    which means ``T``

The supervisor ends as the program does: with the same exit status or by the same signal.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

try:
    import ctypes

    _LIBC = ctypes.CDLL(None)
except (ImportError, OSError):  # the interpreter was built without libffi
    _LIBC = None  # type: ignore[assignment]

#: Seconds between SIGTERM and SIGKILL.
GRACE = 5.0
#: Seconds that the program's remaining processes, such as the reader of a pipe, get to end.
_LEFT = 2.0
_POLL = 0.02
_PR_SET_PDEATHSIG = 1
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def _content(path: str) -> bytes:
    # Importing pathlib would double a supervisor's start time.
    with open(path, "rb") as stream:  # noqa: PTH123 - as above
        return stream.read()


def members(session: int) -> list[int]:
    """The running processes of a session, without its leader and without zombies."""
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - thousands of names; paths are not needed
        if not entry.isdigit() or int(entry) == session:
            continue
        try:
            text = _content(f"/proc/{entry}/stat")
        except OSError:
            continue
        # The name, in parentheses, may contain any character. The fields after it are state,
        # parent, process group and session.
        fields = text.rpartition(b")")[2].split()
        if int(fields[3]) == session and fields[0] not in (b"Z", b"X"):
            found.append(int(entry))
    return found


def _environment() -> dict[bytes, bytes]:
    """The environment that this process got; Python may have added LC_CTYPE to ``os.environ``."""
    entries = _content("/proc/self/environ").split(b"\0")
    return dict(entry.split(b"=", 1) for entry in entries if b"=" in entry)


def _start(command: list[str], ignored: list[int]) -> tuple[int, int]:
    """Start the program; returns its process id, and 0 or the errno of the failed start."""
    environment, parent = _environment(), os.getpid()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            # Ends the program if the supervisor is killed. This is reliable here: the program is a
            # direct child of the supervisor, which has one thread.
            if _LIBC is not None:
                _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(127)
            for number in (*_ENDING, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
                if number not in ignored:
                    signal.signal(number, signal.SIG_DFL)
            os.execvpe(command[0], command, environment)  # noqa: S606 - an argument list
        except OSError as error:
            os.write(writing, str(error.errno).encode())
        os._exit(127)
    os.close(writing)
    failed = os.read(reading, 16)
    os.close(reading)
    return child, int(failed or b"0")


def _tell(processes: list[int], number: int) -> None:
    for pid in processes:
        # A program with other privileges cannot be ended; it keeps the folder locked.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


class _Session:
    """The program and all other processes of this session."""

    def __init__(self, control: int, child: int) -> None:
        self.control = control
        self.child = child
        self.status: int | None = None
        self.killing = False

    def reap(self) -> bool:
        """Collect the program's exit status; returns whether it has ended."""
        if self.status is None:
            pid, status = os.waitpid(self.child, os.WNOHANG)
            if pid:
                self.status = status
        return self.status is not None

    def order(self) -> bytes:
        """Read the build's order; ``b""`` if the build has ended."""
        try:
            return os.read(self.control, 16)
        except ConnectionResetError:
            return b""

    def end(self, grace: float, *, ask: bool = True) -> None:
        """Ask the session's processes to end, kill them after ``grace`` seconds, and wait.

        Args:
            grace: the seconds between SIGTERM and SIGKILL.
            ask: send SIGTERM; otherwise only wait for that time.
        """
        deadline = time.monotonic() + grace
        asked = not ask
        heard = True
        while True:
            self.reap()
            there = members(os.getpid())
            if not there:
                return
            if self.killing or time.monotonic() >= deadline:
                _tell(there, signal.SIGKILL)
            elif not asked:
                _tell(there, signal.SIGTERM)
                asked = True
            time.sleep(_POLL)
            if heard and select.select([self.control], [], [], 0)[0]:
                said = self.order()
                heard = bool(said)
                self.killing |= b"K" in said


def _wait(session: _Session, woken: int) -> None:
    """Wait until the program has ended, or until the session was ended by order or signal."""
    while not session.reap():
        ready, _, _ = select.select([session.control, woken], [], [])
        numbers = os.read(woken, 64) if woken in ready else b""
        order = session.order() if session.control in ready else None
        if order is not None or set(numbers) & set(_ENDING):
            session.killing = order is not None and b"K" in order
            session.end(GRACE)
            return


def main() -> int:
    """Run the program; returns its exit status, or ends by the signal that ended the program."""
    control, locks, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    for descriptor in (control, *map(int, filter(None, locks.split(",")))):
        os.set_inheritable(descriptor, False)
    woken, waking = os.pipe()
    os.set_blocking(waking, False)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    ignored = [int(number) for number in _ENDING if signal.getsignal(number) is signal.SIG_IGN]
    for number in (*_ENDING, signal.SIGCHLD):
        if number not in ignored:
            signal.signal(number, lambda *_: None)
    child, failed = _start(command, ignored)
    # A broken pipe means that the build has ended. The code below detects that too.
    with contextlib.suppress(BrokenPipeError):
        os.write(control, f"E{failed}".encode() if failed else b"S")
    session = _Session(control, child)
    _wait(session, woken)
    # Nothing waits for the processes that the program left in its session.
    session.end(_LEFT, ask=False)
    while not session.reap():
        time.sleep(_POLL)
    status = session.status or 0
    if os.WIFSIGNALED(status):
        ended_by = os.WTERMSIG(status)
        if ended_by != signal.SIGKILL:
            signal.signal(ended_by, signal.SIG_DFL)
        os.kill(os.getpid(), ended_by)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    # Skip the interpreter's shutdown: there is nothing to clean up, and the build is waiting.
    os._exit(main())
