# SPDX-License-Identifier: Apache-2.0
"""Load for a server of the engine: many streams at once, some of which the client gives up."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import engine_server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STREAMS = 64


@dataclass(frozen=True)
class Stream:
    """How a stream ended.

    Attributes:
        text: what arrived.
        events: the number of events that arrived.
        complete: the server sent its last event.
        error: the server's message in the stream or in its answer, or what happened to the
            connection; empty if there was none.
    """

    text: str
    events: int
    complete: bool
    error: str = ""


def request(prompt: str, tokens: int) -> dict[str, Any]:
    """A greedy completion that does not stop before ``tokens`` tokens."""
    return {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}


def stream(
    server: engine_server.Server,
    body: dict[str, Any],
    *,
    give_up: int | None = None,
    started: Callable[[], object] = lambda: None,
) -> Stream:
    """Send a completion and read its events.

    Args:
        server: the server.
        body: the request.
        give_up: close the connection after this many events.
        started: is called after the first event.
    """
    text, events = "", 0
    content = json.dumps({"model": server.model, "stream": True, **body}).encode()
    with contextlib.closing(server.connect()) as connection:
        try:
            connection.request(
                "POST", "/v1/completions", content, {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            if answer.status != 200:
                return Stream(text, events, False, answer.read().decode(errors="replace"))
            for line in answer:
                if line.startswith(b"data: [DONE]"):
                    return Stream(text, events, True)
                if not line.startswith(b"data: "):
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    return Stream(text, events, False, json.dumps(event["error"]))
                events += 1
                text += event["choices"][0]["text"]
                if events == 1:
                    started()
                if events == give_up:
                    return Stream(text, events, False)
        except (OSError, http.client.HTTPException) as error:
            return Stream(text, events, False, f"{type(error).__name__}: {error}")
    return Stream(text, events, False, "the connection was closed")


def streams(
    server: engine_server.Server,
    bodies: Sequence[dict[str, Any]],
    give_up: Callable[[int], int | None] = lambda _: None,
) -> list[Stream]:
    """Send all requests at once, each over a connection of its own."""
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(
            pool.map(
                lambda pair: stream(server, pair[1], give_up=give_up(pair[0])), enumerate(bodies)
            )
        )


def gauge(server: engine_server.Server, name: str) -> float:
    """A number of the server's ``/metrics``, summed over its labels.

    Raises:
        KeyError: there is no such number.
    """
    values = [
        float(line.rpartition(" ")[2])
        for line in str(server.get("/metrics").body).splitlines()
        if line.startswith((f"{name}{{", f"{name} "))
    ]
    if not values:
        raise KeyError(name)
    return sum(values)


def wait_until_idle(server: engine_server.Server) -> None:
    """Wait until the engine has no requests and its cache no blocks in use.

    Raises:
        ServerError: it still has some after the patience of a test.
    """
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
    limit = time.monotonic() + engine_server.PATIENCE
    while any(found := {name: gauge(server, name) for name in names}.values()):
        if time.monotonic() > limit:
            raise server.fail(f"the engine is not idle: {found}")
        time.sleep(0.1)


@dataclass(frozen=True)
class Usage:
    """What the processes of a server hold: bytes of memory, and open files."""

    memory: int
    files: int
    processes: int


def usage(server: engine_server.Server) -> Usage:
    """Read ``/proc`` for all processes of the server."""
    memory = files = 0
    found = server.processes
    for number in found:
        folder = Path("/proc", str(number))
        pages = int((folder / "statm").read_text(encoding="ascii").split()[1])
        memory += pages * os.sysconf("SC_PAGE_SIZE")
        files += len(list((folder / "fd").iterdir()))
    return Usage(memory, files, len(found))


def descent(server: engine_server.Server) -> list[list[int]]:
    """The processes that answer requests and compute: the server, the engine, and its workers.

    An engine with one worker may compute in its own process. The last list is of those that
    compute.
    """
    found: list[list[int]] = [[server.process.pid]]
    parents = {number: _parent(number) for number in server.processes}
    while below := sorted(
        number
        for number, line in server.processes.items()
        if parents.get(number) in found[-1] and "spawn_main" in line
    ):
        found.append(below)
    if len(found) < 2:
        raise server.fail(f"expected a server and an engine: {server.processes}")
    return found


def _parent(number: int) -> int:
    fields = Path("/proc", str(number), "stat").read_text(encoding="utf-8")
    return int(fields.rpartition(")")[2].split()[1])
