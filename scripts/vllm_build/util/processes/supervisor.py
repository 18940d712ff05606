# SPDX-License-Identifier: Apache-2.0
"""Runs one program for ``children`` and sees to it that nothing of the program outlives the build.

A program of its own: ``python -I -S``.

Why a process in between. A build that is killed (SIGKILL, the kernel out of memory) runs no code
any more, and nothing that the kernel offers ends a whole tree of processes with its parent:
PR_SET_PDEATHSIG is tied to the parent's thread, is lost at an exec with other privileges, and is
not inherited by grandchildren. Process groups do not hold the tree together: Ninja starts every
compiler in a group of its own. A session does: the program and all that it starts stay in the
supervisor's session unless they leave it on purpose, as the servers of compiler caches do, which
other builds use as well.

So the supervisor leads a session, and holds one end of a socket whose other end only the build has.
The kernel closes that end with the build, however it ended; the supervisor then ends its session.
It also holds the build's locks, as descriptors that the program does not
get: a folder stays locked until the last process that might write to it has gone.

    arguments: descriptor of the socket, descriptors of locks (with commas, may be empty), the
    program and its arguments it sends:  "S" when the program has started, or "E<errno>" when it
    cannot be started it reads:  "T" end the session, with time to clean up; "K" kill it; end of
    file: the build is gone, as "T"

Its own end is that of the program: the same exit status, or the same signal.
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
except (ImportError, OSError):  # an interpreter that was built without libffi
    _LIBC = None  # type: ignore[assignment]

#: Seconds between SIGTERM and SIGKILL.
GRACE = 5.0
#: Seconds that what the program left running has to end by itself: the reader of a pipe, for one.
_LEFT = 2.0
_POLL = 0.02
_PR_SET_PDEATHSIG = 1
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def _content(path: str) -> bytes:
    # pathlib would double the time that a supervisor takes to start.
    with open(path, "rb") as stream:  # noqa: PTH123 - as above
        return stream.read()


def members(session: int) -> list[int]:
    """Processes of a session other than its leader, without those that have ended and wait to be reaped."""
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - thousands of names, of which only the text is needed
        if not entry.isdigit() or int(entry) == session:
            continue
        try:
            text = _content(f"/proc/{entry}/stat")
        except OSError:
            continue
        # The name, in parentheses, may hold anything. After it: state, parent, process group,
        # session.
        fields = text.rpartition(b")")[2].split()
        if int(fields[3]) == session and fields[0] not in (b"Z", b"X"):
            found.append(int(entry))
    return found


def _environment() -> dict[bytes, bytes]:
    """What this process was given, byte for byte: Python itself may have added LC_CTYPE to ``os.environ``."""
    entries = _content("/proc/self/environ").split(b"\0")
    return dict(entry.split(b"=", 1) for entry in entries if b"=" in entry)


def _start(command: list[str], ignored: list[int]) -> tuple[int, int]:
    """Start the program; returns its process id, and 0 or why it cannot be started (errno)."""
    environment, parent = _environment(), os.getpid()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            # For the case that somebody kills the supervisor; the program is its direct child, and
            # it has one thread.
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
    """The program, and everything else in this session."""

    def __init__(self, control: int, child: int) -> None:
        self.control = control
        self.child = child
        self.status: int | None = None
        self.killing = False

    def reap(self) -> bool:
        """Take note of the program's end; says whether it has ended."""
        if self.status is None:
            pid, status = os.waitpid(self.child, os.WNOHANG)
            if pid:
                self.status = status
        return self.status is not None

    def order(self) -> bytes:
        """What the build says: ``b""`` when it is gone."""
        try:
            return os.read(self.control, 16)
        except ConnectionResetError:
            return b""

    def end(self, grace: float, *, ask: bool = True) -> None:
        """Return when the session is empty: ask its processes to end, wait for ``grace`` seconds, then kill."""
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
    """Return when the program has ended, or when it and the rest of the session have been ended by order."""
    while not session.reap():
        ready, _, _ = select.select([session.control, woken], [], [])
        numbers = os.read(woken, 64) if woken in ready else b""
        order = session.order() if session.control in ready else None
        if order is not None or set(numbers) & set(_ENDING):
            session.killing = order is not None and b"K" in order
            session.end(GRACE)
            return


def main() -> int:
    """Run the program to its end; returns its exit status, or ends by the signal that ended the program."""
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
    with contextlib.suppress(
        BrokenPipeError
    ):  # the build is gone already; what follows sees the same
        os.write(control, f"E{failed}".encode() if failed else b"S")
    session = _Session(control, child)
    _wait(session, woken)
    # What the program left behind in its session would go on without anybody who waits for it.
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
    # Without the interpreter's own end: there is nothing to tidy, and the build waits.
    os._exit(main())
