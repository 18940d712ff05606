# SPDX-License-Identifier: Apache-2.0
"""Starts and ends ``vllm`` of an installed environment: the server, or a command that fails."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: No downloads, no reports, a small cache, and the loopback interface.
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "GLOO_SOCKET_IFNAME": "lo",
}
HOST = "127.0.0.1"
#: Seconds after which a server that neither answers nor ends counts as hanging.
PATIENCE = 300.0


class ServerError(Exception):
    """The server did something else than the test expected; the message ends with its log."""


@dataclass(frozen=True)
class Answer:
    """The answer to a request."""

    status: int
    body: Any

    @property
    def text(self) -> str:
        """The generated text of a completion or a chat."""
        choice = self.body["choices"][0]
        return str(choice["text"] if "text" in choice else choice["message"]["content"])


def environ(prefix: Path, home: Path, **changes: str) -> dict[str, str]:
    """The variables of a program in ``prefix``; nothing of the caller's.

    The search path has only the environment, so that a compiler of the machine changes nothing.
    """
    return {
        "PATH": f"{prefix}/bin",
        "HOME": str(home),
        "PYTHONNOUSERSITE": "1",
        **SETTINGS,
        **changes,
    }


def command(prefix: Path, *arguments: str) -> list[str]:
    """The command line of the environment's ``vllm``."""
    return [str(prefix / "bin" / "python"), str(prefix / "bin" / "vllm"), *arguments]


def free_port() -> int:
    """A port of the loopback interface that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def members(session: int) -> dict[int, str]:
    """The processes of a session that run, and their command lines."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # The fields after the name, which is in parentheses and may contain spaces.
            state, _parent, _group, owner = (
                (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:4]
            )
            if int(owner) == session and state != "Z":
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(folder.name)] = line.decode(errors="replace").strip()
    return found


class Program:
    """A run of ``vllm`` in a session of its own, whose output is in a file."""

    def __init__(
        self, line: list[str], log: Path, env: Mapping[str, str], cwd: Path | None = None
    ) -> None:
        """Start the program.

        Args:
            line: the command line.
            log: the file for its output.
            env: all of its variables.
            cwd: its folder; default: that of the log.
        """
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                line,
                cwd=cwd or log.parent,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """What it has printed until now."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def last_line(self) -> str:
        """The last line that it has printed."""
        return next((line for line in reversed(self.log.splitlines()) if line.strip()), "")

    @property
    def processes(self) -> dict[int, str]:
        """Its processes, and those that they started."""
        return members(self.process.pid)

    def fail(self, what: str) -> ServerError:
        """An error with the end of the log."""
        return ServerError(f"{what}\n{self.log[-6000:]}")

    def wait_for(self, text: str, timeout: float = PATIENCE) -> None:
        """Wait until it has printed ``text``.

        Raises:
            ServerError: it ended before, or did not print the text in time.
        """
        limit = time.monotonic() + timeout
        while text not in self.log:
            if self.process.poll() is not None and text not in self.log:
                raise self.fail(f"it ended with {self.process.returncode} without {text!r}")
            if time.monotonic() > limit:
                raise self.fail(f"no {text!r} within {timeout:.0f} s")
            time.sleep(0.05)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for its end, and for that of the processes that it started.

        Returns:
            Its exit status; negative for a signal.

        Raises:
            ServerError: it did not end in time, or left processes.
        """
        limit = time.monotonic() + timeout
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self.fail(f"it did not end within {timeout:.0f} s") from None
        while left := self.processes:
            if time.monotonic() > limit:
                raise self.fail(f"it ended with {status} and left {left}")
            time.sleep(0.05)
        return status

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = PATIENCE) -> int:
        """Send it a signal, and wait as :meth:`wait` does."""
        self.process.send_signal(number)
        return self.wait(timeout)

    def kill(self) -> None:
        """End all of its processes at once."""
        while left := self.processes:
            for number in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.05)
        self.process.wait()


class Server(Program):
    """A run of ``vllm serve`` on a port of the loopback interface."""

    def __init__(
        self,
        prefix: Path,
        model: Path,
        home: Path,
        *options: str,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start the server; it cannot answer yet.

        Args:
            prefix: the environment.
            model: the folder of the model. Its name is the model's name.
            home: the home folder, with the caches and the log of the server.
            options: more options of ``vllm serve``.
            port: the port; default: a free one.
            env: all variables; default: those of :func:`environ`.
        """
        self.port = port or free_port()
        self.model = model.name
        home.mkdir(parents=True, exist_ok=True)
        line = command(
            prefix,
            *("serve", str(model), "--served-model-name", self.model),
            *("--host", HOST, "--port", str(self.port), *options),
        )
        super().__init__(line, home / "server.log", env or environ(prefix, home))

    def connect(self, timeout: float = PATIENCE) -> http.client.HTTPConnection:
        """A new connection to the server."""
        return http.client.HTTPConnection(HOST, self.port, timeout=timeout)

    def wait_until_ready(self, timeout: float = PATIENCE) -> None:
        """Wait until the server answers.

        Raises:
            ServerError: it ended, or does not answer in time.
        """
        limit = time.monotonic() + timeout
        while True:
            if self.process.poll() is not None:
                raise self.fail(f"the server ended with {self.process.returncode}")
            if time.monotonic() > limit:
                raise self.fail(f"the server does not answer after {timeout:.0f} s")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.get("/health").status == 200:
                    return
            time.sleep(0.1)

    def get(self, path: str) -> Answer:
        """Send a GET request."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any] | bytes) -> Answer:
        """Send a POST request; a mapping is sent as JSON, with the name of the model."""
        return self._ask("POST", path, self._encode(body))

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Send a POST request and read its events as they arrive.

        Raises:
            ServerError: the answer is no stream, or ends before its last event.
        """
        with contextlib.closing(self.connect()) as connection:
            connection.request("POST", path, self._encode({**body, "stream": True}), _JSON)
            answer = connection.getresponse()
            if answer.status != 200:
                raise self.fail(f"{path}: {answer.status} {answer.read()!r}")
            for line in answer:
                if line.startswith(b"data: [DONE]"):
                    return
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])
        raise self.fail(f"{path}: the stream ended without its last event")

    def _encode(self, body: Mapping[str, Any] | bytes) -> bytes:
        if isinstance(body, bytes):
            return body
        return json.dumps({"model": self.model, **body}).encode()

    def _ask(self, method: str, path: str, body: bytes | None) -> Answer:
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, _JSON if body is not None else {})
            answer = connection.getresponse()
            content = answer.read()
        if "json" in (answer.getheader("Content-Type") or ""):
            return Answer(answer.status, json.loads(content))
        return Answer(answer.status, content.decode(errors="replace"))


_JSON = {"Content-Type": "application/json"}


@contextlib.contextmanager
def serving(
    prefix: Path,
    model: Path,
    home: Path,
    *options: str,
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A server that answers; afterwards none of its processes is left.

    Raises:
        ServerError: it does not start, or SIGTERM does not end it without an error.
    """
    server = Server(prefix, model, home, *options, env=env)
    try:
        server.wait_until_ready()
        yield server
        if server.process.poll() is None and (status := server.stop()):
            raise server.fail(f"SIGTERM ended the server with {status}")
    finally:
        server.kill()
