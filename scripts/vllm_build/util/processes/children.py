# SPDX-License-Identifier: Apache-2.0
"""Starts programs; no other module of the library does.

A program runs under a supervisor in a separate session (``supervisor`` explains why). The program
and everything it started end if the ``with`` block is left early or this process is killed. A
second signal ends them at once. Until then, the supervisor holds the locks of the build.
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

#: Runs a module of this library in an interpreter that reads none of the user's PYTHON… variables,
#: regardless of how the library's folder was found.
_MODULE = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def isolated_python(*arguments: str) -> list[str]:
    """The command line of this interpreter in isolated mode.

    It ignores PYTHON… variables, the user's site-packages and the current folder.
    """
    return [_PYTHON, "-I", "-X", "utf8", *(["-B"] if sys.dont_write_bytecode else []), *arguments]


def module(name: str, *arguments: str) -> list[str]:
    """The command line that runs a module of this library as a program."""
    return isolated_python("-c", _MODULE, str(paths.library_folder()), name, *arguments)


def without_python(environment: Mapping[str, str]) -> dict[str, str]:
    """Remove the PYTHON… variables: they are not meant for an interpreter in another prefix."""
    return {name: value for name, value in environment.items() if not name.startswith("PYTHON")}


class Child(subprocess.Popen[Any]):
    """A program under its supervisor.

    Use it in a ``with`` block: an exception in the block ends the program and everything that it
    started.
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
            OSError: the program cannot be started.
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
        """Ask all processes of the session to end, and after some seconds kill the others."""
        self._order(b"T")

    def kill(self) -> None:
        """Kill all processes of the session."""
        self._order(b"K")

    def end(self) -> None:
        """End the program and everything that it started, and wait until they have ended."""
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

    Bytes that are not UTF-8 become replacement characters.

    Args:
        command: the program and its arguments.
        env: the complete environment; default: this process's.
        cwd: the folder to run in.
        given: the text on its standard input; default: nothing.
        timeout: seconds after which the program and everything that it started are ended.
        merged: standard error goes into ``stdout``, in the order of writing.

    Raises:
        OSError: the program cannot be started.
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
    """As ``run``, for output that is not text.

    Raises:
        OSError: the program cannot be started.
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
