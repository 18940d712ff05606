# SPDX-License-Identifier: Apache-2.0
"""A local http server that serves ranges correctly, and misbehaves on request."""

from __future__ import annotations

import base64
import re
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass
class Server:
    """The state of a server.

    Attributes:
        url: its address.
        files: path -> content.
        folder: a folder whose files are served in addition to ``files``.
        etag: whether answers have an ETag, which depends on the content.
        modified: the ``Last-Modified`` of all files.
        ranges: whether ranges are honoured.
        script: an action for each of the next requests; None serves the request correctly. An
            action is called with the handler and the file's content.
        seconds: delay before each answer.
        rate: bytes per second of all connections together; None means no limit.
        asked: (path, Range) of each request.
        login: required ``user:password``; None requires no login.
        logins: the ``Authorization`` of each request.
        sent: number of bytes sent in bodies.
        free_at: time at which the simulated line has carried all sent bytes.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    folder: Path | None = None
    etag: bool = True
    modified: str | None = None
    ranges: bool = True
    script: list[Callable[[Any, bytes], bool] | None] = field(default_factory=list)
    seconds: float = 0.0
    rate: float | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    login: str | None = None
    logins: list[str | None] = field(default_factory=list)
    sent: int = 0
    free_at: float = 0.0

    def content(self, path: str) -> bytes | None:
        if path in self.files:
            return self.files[path]
        file = self.folder / path.lstrip("/") if self.folder else None
        return file.read_bytes() if file and file.is_file() else None


def window(header: str | None, size: int) -> tuple[int, int] | None:
    """Offsets of the first byte of a ``Range`` header, and of the byte after the last."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if not match:
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size
    return int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)


def basic(login: str) -> str:
    """The value of ``Authorization`` for ``user:password``."""
    return "Basic " + base64.b64encode(login.encode()).decode()


class Handler(BaseHTTPRequestHandler):
    state: Server
    lock = threading.Lock()

    def log_message(self, *_: Any) -> None:
        pass

    def tag(self, data: bytes) -> str:
        return f'"{hash(data) & 0xFFFFFFFF:x}"'

    def do_GET(self) -> None:
        state = self.state
        with self.lock:
            state.asked.append((self.path, self.headers.get("Range")))
            state.logins.append(self.headers.get("Authorization"))
            action = state.script.pop(0) if state.script else None
        time.sleep(state.seconds)
        if state.login is not None and self.headers.get("Authorization") != basic(state.login):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="kernels"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = state.content(unquote(self.path))
        with suppress(BrokenPipeError, ConnectionResetError):
            if action is not None and action(self, data or b""):
                return
            # The action may have changed the content.
            data = state.content(unquote(self.path))
            if data is None:
                self.send_error(404)
                return
            self.serve(data)

    def serve(self, data: bytes, *, ranges: bool | None = None) -> None:
        honoured = self.state.ranges if ranges is None else ranges
        asked = window(self.headers.get("Range"), len(data)) if honoured else None
        condition = self.headers.get("If-Range")
        if asked and condition and condition not in (self.tag(data), self.state.modified):
            asked = None
        begin, end = asked or (0, len(data))
        if asked and begin >= len(data):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.head(206 if asked else 200, data, begin, end)
        self.body(data[begin:end])

    def head(self, status: int, data: bytes, begin: int, end: int, **more: str) -> None:
        self.send_response(status)
        headers = {"Content-Length": str(end - begin)}
        if status == 206:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
        if self.state.etag:
            headers["ETag"] = self.tag(data)
        if self.state.modified:
            headers["Last-Modified"] = self.state.modified
        for name, value in {
            **headers,
            **{name.replace("_", "-"): value for name, value in more.items()},
        }.items():
            self.send_header(name, value)
        self.end_headers()

    def body(self, data: bytes) -> None:
        step = 1 << 16
        for done in range(0, len(data), step):
            piece = memoryview(data)[done : done + step]
            self.wfile.write(piece)
            with self.lock:
                self.state.sent += len(piece)
                if self.state.rate:
                    # All connections share one line.
                    self.state.free_at = (
                        max(self.state.free_at, time.monotonic()) + len(piece) / self.state.rate
                    )
            if self.state.rate:
                time.sleep(max(0.0, self.state.free_at - time.monotonic()))

    def reset(self) -> None:
        """Reset the connection."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


def status(code: int, **headers: str) -> Callable[[Handler, bytes], bool]:
    """An action that answers with a status and headers, and without a body."""

    def act(handler: Handler, _: bytes) -> bool:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return act


def breaks(after: int, *, hard: bool = False) -> Callable[[Handler, bytes], bool]:
    """An action that ends the connection after some bytes of the body.

    ``hard`` resets it, so that bytes in transit are lost.
    """

    def act(handler: Handler, data: bytes) -> bool:
        asked = window(handler.headers.get("Range"), len(data)) if handler.state.ranges else None
        begin, end = asked or (0, len(data))
        handler.head(206 if asked else 200, data, begin, end)
        handler.body(data[begin : min(end, begin + after)])
        if hard:
            handler.reset()
        handler.close_connection = True
        return True

    return act


def stalls(after: int, seconds: float) -> Callable[[Handler, bytes], bool]:
    """An action that sends some bytes of the body and then waits."""

    def act(handler: Handler, data: bytes) -> bool:
        asked = window(handler.headers.get("Range"), len(data)) if handler.state.ranges else None
        begin, end = asked or (0, len(data))
        handler.head(206 if asked else 200, data, begin, end)
        handler.body(data[begin : begin + after])
        handler.wfile.flush()
        time.sleep(seconds)
        return True

    return act


def says(
    code: int = 206, body: bytes | None = None, **headers: str
) -> Callable[[Handler, bytes], bool]:
    """An action that answers with ``headers`` instead of the correct ones."""

    def act(handler: Handler, data: bytes) -> bool:
        begin, end = window(handler.headers.get("Range"), len(data)) or (0, len(data))
        handler.head(code, data, begin, end, **headers)
        handler.body(data[begin:end] if body is None else body)
        return True

    return act


def ignores_ranges(handler: Handler, data: bytes) -> bool:
    """Send the whole file, regardless of the range."""
    handler.serve(data, ranges=False)
    return True


def changes(server: Server, path: str, content: bytes) -> Callable[[Handler, bytes], bool]:
    """An action that replaces the file's content, and serves it correctly."""

    def act(*_: Any) -> bool:
        server.files[path] = content
        return False

    return act


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Run a server during the block; with a ``context`` it speaks https."""
    state = Server()
    handler = type("Bound", (Handler,), {"state": state})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if context is not None:
        http.socket = context.wrap_socket(http.socket, server_side=True)
    http.daemon_threads = True
    http.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(
        target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    state.url = f"{'https' if context else 'http'}://127.0.0.1:{http.server_address[1]}"
    try:
        yield state
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
