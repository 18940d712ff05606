# SPDX-License-Identifier: Apache-2.0
"""Starts ``vllm serve`` on a loopback port and asks it over HTTP."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import demo_programs
from demo_programs import DemoError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping, Sequence

HOST = "127.0.0.1"
#: The name of the model in requests.
MODEL = "small"
_OK = 200
_POLL = 0.1


def free_port() -> int:
    """A port of this machine that no program listens to."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def require_free(port: int) -> None:
    """Refuse a port that another program uses.

    Raises:
        DemoError: it cannot be bound.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", error)
            raise DemoError(
                f"the server cannot listen to port {port} of {HOST}: {why}; choose "
                "another port, or 0 for a free one"
            ) from error


def vllm() -> list[str]:
    """The command ``vllm`` of this interpreter's environment, which need not be activated."""
    script = Path(sys.executable).with_name("vllm")
    if script.is_file():
        return [str(script)]
    # A copy of an environment, whose scripts name another interpreter, has none.
    return [sys.executable, "-P", "-m", "vllm.entrypoints.cli.main"]


def command(model: Path, port: int, options: Sequence[str] = ()) -> list[str]:
    """The command line that serves ``model``."""
    return [
        *vllm(),
        *("serve", str(model), "--served-model-name", MODEL),
        *("--host", HOST, "--port", str(port)),
        *options,
    ]


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        program: its process.
        port: the port that it listens to.
        log: its output.
        seconds: the time from its start to its first answer.
    """

    program: subprocess.Popen[bytes]
    port: int
    log: Path
    seconds: float

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://{HOST}:{self.port}"

    def ask(self, path: str, body: Mapping[str, Any] | None = None, limit: float = 120) -> Any:
        """The answer to a request: GET without a body, else POST with a JSON document.

        Raises:
            DemoError: the server refused, or did not answer within ``limit`` seconds.
        """
        try:
            status, text = _request(self.port, path, body, limit)
        except (OSError, http.client.HTTPException) as error:
            raise DemoError(
                f"{self.url}{path} gives no answer: {error}\n{demo_programs.last_lines(self.log)}"
            ) from error
        if status != _OK:
            raise DemoError(
                f"{self.url}{path} answers {status}: {text}\n{demo_programs.last_lines(self.log)}"
            )
        return json.loads(text)

    def require_running(self) -> None:
        """Wait until the server ends by itself.

        Raises:
            DemoError: always: it serves until it is asked to end.
        """
        status = self.program.wait()
        raise DemoError(
            f"the server ended (exit status {status})\n{demo_programs.last_lines(self.log)}"
        )


def _request(port: int, path: str, body: Mapping[str, Any] | None, limit: float) -> tuple[int, str]:
    # Without urllib, which would use the proxies of the environment.
    connection = http.client.HTTPConnection(HOST, port, timeout=limit)
    try:
        if body is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", errors="replace")
    finally:
        connection.close()


def _is_up(port: int) -> bool:
    try:
        status, _ = _request(port, "/health", None, 5)
    except (OSError, http.client.HTTPException):
        return False
    return status == _OK


@contextmanager
def running(
    words: Sequence[str], port: int, env: Mapping[str, str], log: Path, limit: float = 600
) -> Iterator[Server]:
    """Start a server and wait until it answers; the end of the block ends it.

    Args:
        words: its command line.
        port: the port that it will listen to.
        env: all its variables.
        log: the file for its output.
        limit: the seconds that it may take to answer.

    Raises:
        DemoError: it ended before it answered, or did not answer in time.
    """
    begin = time.monotonic()
    with demo_programs.started(words, env, log) as program:
        while not _is_up(port):
            if (status := program.poll()) is not None:
                raise demo_programs.failure(
                    words, f"ended before it answered (exit status {status})", log
                )
            if time.monotonic() - begin > limit:
                raise demo_programs.failure(words, f"has not answered after {limit:.0f} s", log)
            time.sleep(_POLL)
        yield Server(program, port, log, time.monotonic() - begin)
