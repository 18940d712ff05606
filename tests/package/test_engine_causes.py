# SPDX-License-Identifier: Apache-2.0
"""The message of the command ``vllm`` names the cause, which another process may have met."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING

import pytest
from engine_runs import no_traces_fixture, raising, run_fixture  # noqa: F401 -- fixtures

from vllm._kernels.engine import failure

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path


CHILD = """
import logging, sys
from vllm._kernels.engine import failure
failure.watch()
failure.watch()
log = logging.getLogger("vllm.v1.worker.cpu_worker")
log.addHandler(logging.NullHandler())
for name in ("other", "vllm.entrypoints.openai"):
    logging.getLogger(name).addHandler(logging.NullHandler())
    logging.getLogger(name).propagate = False
log.propagate = False
log.error("no error is passed with it")
try:
    raise KeyError("of another library")
except KeyError:
    logging.getLogger("other").exception("a message")
    logging.getLogger("vllm.entrypoints.openai").exception("of a single request")
try:
    raise ValueError("the cause, ü")
except ValueError:
    log.exception("a process failed")
try:
    raise RuntimeError("the consequence")
except RuntimeError:
    log.exception("another process failed")
"""


@pytest.fixture
def child(
    copy: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> Callable[[str], None]:
    """Run a program that finds our modules without the engine's, which take long to import."""

    def run_child(program: str) -> None:
        done = python(copy, program)
        assert (done.returncode, done.stderr) == (0, "")

    return run_child


def test_the_cause_comes_from_the_process_that_failed_first(
    run: Callable[..., tuple[int, str]], child: Callable[[str], None]
) -> None:
    def engines() -> None:
        child(CHILD)
        raise RuntimeError("Initialization failed. See root cause above.")

    assert run(engines, "serve") == (1, "error: the cause, ü\n")


def test_a_server_whose_engine_ended_is_an_error(
    run: Callable[..., tuple[int, str]], child: Callable[[str], None]
) -> None:
    program = CHILD.replace("another process failed", "EngineCore encountered a fatal error.")

    def engines() -> None:
        child(program)

    assert run(engines, "serve") == (1, "error: the engine ended: the cause, ü\n")


def test_a_process_that_recovers_is_no_error(
    run: Callable[..., tuple[int, str]], child: Callable[[str], None]
) -> None:
    def engines() -> None:
        child(CHILD)

    assert run(engines, "serve") == (0, "")


def test_without_a_cause_the_error_itself_is_said(run: Callable[..., tuple[int, str]]) -> None:
    text = "Initialization failed. See root cause above."
    assert run(raising(RuntimeError(text)), "serve") == (1, f"error: {text}\n")


def test_another_error_is_not_replaced(
    run: Callable[..., tuple[int, str]], child: Callable[[str], None]
) -> None:
    def engines() -> None:
        child(CHILD)
        raise ValueError("a bad value")

    assert run(engines, "serve") == (1, "error: a bad value\n")


def test_outside_the_command_nothing_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(failure.PLACE, raising=False)
    before = logging.getLogRecordFactory()
    failure.watch()
    failure.note(ValueError("x"))
    assert logging.getLogRecordFactory() is before
    assert failure.first() is None
    monkeypatch.setenv(failure.PLACE, "/proc/0/fd/0")
    failure.note(ValueError("x"))
    assert failure.first() is None


def test_a_server_whose_engine_ends_has_not_succeeded(run: Callable[..., tuple[int, str]]) -> None:
    """Upstream's server returns, as after a signal."""

    def engines() -> None:
        failure.note(RuntimeError("a worker was killed"))
        failure.note(LookupError("EngineCore encountered an issue. See stack trace"))

    status, said = run(engines, "serve")
    assert status == 1
    assert said == "error: the engine ended: a worker was killed\n"


def test_an_engine_that_ends_as_asked_is_no_error(run: Callable[..., tuple[int, str]]) -> None:
    def engines() -> None:
        failure.note_request()
        failure.note(LookupError("EngineCore encountered an issue. See stack trace"))

    assert run(engines, "serve") == (0, "")
    assert run(failure.note_end, "serve") == (1, "error: the engine ended: its process died\n")


def test_the_file_of_errors_does_not_grow_without_end(run: Callable[..., tuple[int, str]]) -> None:
    def engines() -> None:
        for number in range(1000):
            failure.note(ValueError(f"{number}: {'x' * 500}"))
        failure.note_end()

    status, said = run(engines, "serve")
    assert status == 1
    assert said.startswith("error: the engine ended: 0: xxx")


def test_errors_of_single_requests_do_not_count(run: Callable[..., tuple[int, str]]) -> None:
    status, said = run(lambda: failure.note(ValueError("a bad request")), "serve")
    assert (status, said) == (0, "")


def test_the_status_is_that_of_shells() -> None:
    assert failure.status_of(signal.SIGTERM) == 143
