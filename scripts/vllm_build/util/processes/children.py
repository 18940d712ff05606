# SPDX-License-Identifier: Apache-2.0
"""The one way to start a program: nothing that a build started goes on without it, or without its locks.

A program runs below a supervisor (see ``supervisor`` for why), in a session of its own. It ends
with everything it started when the block that uses it is left early, when this process is killed,
and at a second signal without delay.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_build.util import locks, paths
from vllm_build.util.processes import signals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

_PYTHON = sys.executable
_SUPERVISOR = [_PYTHON, "-I", "-S", "-B", str(Path(__file__).with_name("supervisor.py"))]
_ALIVE: set[Child] = set()

#: A module of this library, whichever way its folder was found, in an interpreter that reads none
#: of the user's PYTHON… variables.
_MODULE = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def isolated_python(*arguments: str) -> list[str]:
    """The command line of this interpreter, without the user's PYTHON… variables, site-packages and current folder."""
    return [_PYTHON, "-I", "-X", "utf8", *(["-B"] if sys.dont_write_bytecode else []), *arguments]


def module(name: str, *arguments: str) -> list[str]:
    """The command line that runs a module of this library as a program."""
    return isolated_python("-c", _MODULE, str(paths.library_folder()), name, *arguments)


def without_python(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` without the variables that steer the caller's Python: another interpreter, in another prefix, must not obey them."""
    return {name: value for name, value in environment.items() if not name.startswith("PYTHON")}


class Child(subprocess.Popen[Any]):
    """A program below its supervisor.

    Use it in a ``with`` block: an exception in the block ends the program and all that it started.
    """

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: Any = None,
        stderr: Any = None,
        text: bool = True,
    ) -> None:
        """Start ``command``.

        Raises:
            OSError: it cannot be started.
        """
        held = locks.held()
        self._control, theirs = socket.socketpair()
        supervisor = [*_SUPERVISOR, str(theirs.fileno()), ",".join(map(str, held))]
        with signals.deferred(), theirs, contextlib.ExitStack() as undo:
            undo.callback(self._control.close)
            super().__init__(
                [*supervisor, *(os.fspath(word) for word in command)],
                env=None if env is None else dict(env),
                cwd=cwd,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                text=text,
                errors="replace" if text else None,
                start_new_session=True,
                pass_fds=(theirs.fileno(), *held),
            )
            undo.pop_all()
            _ALIVE.add(self)
        try:
            said = self._control.recv(16)
        except BaseException:
            self.end()
            self._control.close()
            raise
        if said[:1] != b"S":
            self.end()
            self._control.close()
            number = int(said[1:] or b"0")
            raise OSError(
                number, os.strerror(number) if number else "its supervisor ended", str(command[0])
            )

    def _order(self, order: bytes) -> None:
        try:
            self._control.send(order, socket.MSG_NOSIGNAL)
        except OSError:
            return  # the supervisor has ended, and the session with it

    def terminate(self) -> None:
        """Ask everything in the session to end, and kill what has not after some seconds."""
        self._order(b"T")

    def kill(self) -> None:
        """Kill everything in the session."""
        self._order(b"K")

    def end(self) -> None:
        """End the program and all that it started, and wait for that."""
        self.terminate()
        self.wait()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()

    def wait(self, timeout: float | None = None) -> int:
        """As ``Popen.wait``."""
        status = super().wait(timeout)
        _ALIVE.discard(self)
        return status

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is not None:
                self.end()
            super().__exit__(kind, value, traceback)
        finally:
            _ALIVE.discard(self)
            self._control.close()


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    given: str | None = None,
    timeout: float | None = None,
    merged: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` to its end and return its status and output, as ``subprocess.run`` does.

    What is not UTF-8 is decoded to a mark.

    Args:
        command: the program and its arguments.
        env: the whole environment; default: this process's.
        cwd: where it runs.
        given: what it reads from standard input; default: nothing.
        timeout: seconds after which it is ended with all that it started.
        merged: standard error goes into ``stdout``, in the order of writing.

    Raises:
        OSError: it cannot be started.
        subprocess.TimeoutExpired: it did not end in time.
    """
    with Child(
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
    ) as child:
        out, err = child.communicate(given, timeout)
    return subprocess.CompletedProcess(list(command), child.returncode, out, err)


def run_for_bytes(
    command: Sequence[str], *, cwd: str | os.PathLike[str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """As ``run``, for output that is no text.

    Raises:
        OSError: it cannot be started.
    """
    with Child(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=False
    ) as child:
        out, err = child.communicate()
    return subprocess.CompletedProcess(list(command), child.returncode, out, err)


def kill_all() -> None:
    """Kill the sessions of all children."""
    for child in tuple(_ALIVE):
        child.kill()


signals.on_second(kill_all)
