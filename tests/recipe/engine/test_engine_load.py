# SPDX-License-Identifier: Apache-2.0
"""The engine's server under load: streams, clients that give up, bad requests, a killed process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import engine_load
import engine_server
import full_suite
import pytest
from engine_load import STREAMS, request, stream, streams
from engine_small import CONTEXT, SEQUENCES

if TYPE_CHECKING:
    from pathlib import Path

    from engine_server import Server

pytestmark = pytest.mark.slow

OPTIONS = ("--max-model-len", str(CONTEXT), "--max-num-seqs", str(SEQUENCES), "--dtype", "float32")
#: Tokens of an answer; enough for clients to give up in the middle of it.
TOKENS = 32
#: Rounds of load after which memory must be back; the first ones fill pools and caches.
ROUNDS = 12
#: Bytes that the server may hold after the load in addition to those before: what allocators keep.
KEPT = 64 << 20


def bodies(tokens: int = TOKENS) -> list[dict[str, Any]]:
    """Requests with prompts of different lengths."""
    return [
        request(f"Request {number}: " + " ".join(["build"] * (number % 24 + 1)), tokens)
        for number in range(STREAMS)
    ]


@pytest.fixture(scope="module")
def alone(server: Server) -> list[str]:
    """The answer to each request when the server has no other one."""
    found = [stream(server, body) for body in bodies()]
    assert all(answer.complete for answer in found), found
    assert len({answer.text for answer in found}) > STREAMS // 2, "the model answers all the same"
    return [answer.text for answer in found]


def test_streams_at_once_get_the_answers_that_each_gets_alone(
    server: Server, alone: list[str]
) -> None:
    found = streams(server, bodies())
    assert [answer.error for answer in found] == [""] * STREAMS
    assert all(answer.complete for answer in found)
    assert [answer.text for answer in found] == alone
    engine_load.wait_until_idle(server)


def test_clients_that_give_up_do_not_disturb_the_others(server: Server, alone: list[str]) -> None:
    before = engine_load.gauge(server, "vllm:generation_tokens_total")
    # Every second client leaves, at once or in the middle of its answer.
    found = streams(
        server, bodies(), lambda number: 1 + number // 2 % (TOKENS // 2) if number % 2 else None
    )
    for number, answer in enumerate(found):
        assert answer.error == "", answer
        assert answer.complete is (number % 2 == 0), answer
        assert alone[number].startswith(answer.text)
        assert number % 2 or answer.text == alone[number]
    engine_load.wait_until_idle(server)
    made = engine_load.gauge(server, "vllm:generation_tokens_total") - before
    assert made < STREAMS * TOKENS, "the engine went on for clients that had left"


#: Name -> a request, its status, and words of the answer.
BAD: dict[str, tuple[dict[str, Any] | bytes, int, str]] = {
    "a prompt that is too long": (request("word " * 4 * CONTEXT, 8), 400, str(CONTEXT)),
    "more tokens than fit": (request("word", CONTEXT + 1), 400, "max_tokens"),
    "megabytes of text": (request("word " * (1 << 19), 8), 400, str(CONTEXT)),
    "token numbers beyond the vocabulary": ({"prompt": [1 << 30], "max_tokens": 4}, 400, "vocab"),
    "negative token numbers": ({"prompt": [-1], "max_tokens": 4}, 400, ""),
    "no prompt": ({"max_tokens": 4}, 400, "prompt"),
    "a prompt that is a number": ({"prompt": 7, "max_tokens": 4}, 400, "prompt"),
    "no tokens": ({"prompt": "word", "max_tokens": -1}, 400, "max_tokens"),
    "a negative temperature": ({"prompt": "word", "temperature": -1}, 400, "temperature"),
    "a temperature that is text": ({"prompt": "word", "temperature": "hot"}, 400, "temperature"),
    "more probabilities than permitted": ({"prompt": "word", "logprobs": 5000}, 400, "logprobs"),
    "another model": ({"model": "another", "prompt": "word"}, 404, "another"),
    "no JSON": (b"{", 400, "JSON"),
    "JSON that is no object": (b"[1, 2]", 400, ""),
    "bytes that are no text": (b"\xff\xfe\x00{}", 400, ""),
    "an empty body": (b"", 400, ""),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused_with_a_message(
    server: Server, alone: list[str], name: str
) -> None:
    body, status, words = BAD[name]
    answer = server.post("/v1/completions", body)
    assert answer.status == status, answer
    # Bytes that are no text do not reach the engine; the web framework refuses them in its words.
    message = answer.body["error"]["message"] if "error" in answer.body else answer.body["detail"]
    assert message.strip()
    assert words.lower() in json.dumps(answer.body).lower()
    assert "Traceback" not in json.dumps(answer.body)
    assert stream(server, bodies()[0]).text == alone[0], "the server answers no longer"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/completions", 405), ("GET", "/no/such/page", 404), ("DELETE", "/health", 405)],
)
def test_other_paths_and_methods_are_refused(
    server: Server, method: str, path: str, status: int
) -> None:
    with contextlib.closing(server.connect()) as connection:
        connection.request(method, path)
        assert connection.getresponse().status == status


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n{}",
        b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["bytes", "half", "length", "long"],
)
def test_what_is_no_request_does_not_stop_the_server(
    server: Server, alone: list[str], sent: bytes
) -> None:
    with socket.create_connection((engine_server.HOST, server.port), timeout=60) as raw:
        # The server may refuse the rest of a long line.
        with contextlib.suppress(ConnectionError):
            raw.sendall(sent)
            raw.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            answer = raw.recv(4096)
            assert not answer or answer.startswith(b"HTTP/1.1 4"), answer
    assert stream(server, bodies()[0]).text == alone[0]


def test_bad_requests_among_good_ones_disturb_none(server: Server, alone: list[str]) -> None:
    bad = [body for body, _, _ in BAD.values() if not isinstance(body, bytes)]
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(lambda: [server.post("/v1/completions", body) for body in 2 * bad])
        found = streams(server, bodies())
        assert all(400 <= answer.status < 500 for answer in refused.result())
    assert [answer.text for answer in found] == alone


@full_suite.full_only
def test_memory_files_and_processes_return_after_the_load(server: Server) -> None:
    def load() -> None:
        streams(server, bodies(), lambda number: 3 if number % 4 == 3 else None)
        engine_load.wait_until_idle(server)

    for _ in range(2):
        load()
    before = engine_load.usage(server)
    for _ in range(ROUNDS):
        load()
    after = engine_load.usage(server)
    assert after.processes == before.processes
    assert after.files <= before.files + 2, (before, after)
    assert after.memory <= before.memory + KEPT, (before, after)


def killed(server: Server, target: int) -> list[engine_load.Stream]:
    """Kill a process of the server while streams run; returns how these ended."""
    running = threading.Semaphore(0)
    with ThreadPoolExecutor(STREAMS) as pool:
        # Long answers: none is complete when the process is killed.
        answers = [
            pool.submit(stream, server, body, started=running.release)
            for body in bodies(CONTEXT - 64)
        ]
        for _ in range(SEQUENCES):
            assert running.acquire(timeout=engine_server.PATIENCE)
        os.kill(target, signal.SIGKILL)
        return [answer.result(timeout=engine_server.PATIENCE) for answer in answers]


def check_kill(server: Server, target: int) -> None:
    """Every client is told, the server ends with an error, and nothing is left."""
    found = killed(server, target)
    assert not any(answer.complete for answer in found)
    assert all(answer.error for answer in found), found
    status = server.wait()
    assert status != 0, server.log[-3000:]
    assert "died unexpectedly" in server.log or "EngineDeadError" in server.log


def test_a_killed_worker_ends_the_streams_and_the_server(
    prefix: Path, model: Path, tmp_path: Path
) -> None:
    with engine_server.serving(prefix, model, tmp_path, *OPTIONS) as server:
        check_kill(server, *engine_load.descent(server)[-1])


@full_suite.full_only
@pytest.mark.parametrize("part", ["engine", "worker"])
def test_a_killed_process_of_a_parallel_engine_ends_the_rest(
    prefix: Path, model: Path, tmp_path: Path, part: str
) -> None:
    options = (*OPTIONS, "--tensor-parallel-size", "2")
    with engine_server.serving(prefix, model, tmp_path, *options) as server:
        _, (engine,), workers = engine_load.descent(server)
        assert len(workers) == 2
        check_kill(server, engine if part == "engine" else workers[1])


@full_suite.full_only
def test_a_killed_server_leaves_no_engine(prefix: Path, model: Path, tmp_path: Path) -> None:
    with engine_server.serving(prefix, model, tmp_path, *OPTIONS) as server:
        found = killed(server, server.process.pid)
        assert not any(answer.complete for answer in found)
        assert server.wait() == -signal.SIGKILL
