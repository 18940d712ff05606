# SPDX-License-Identifier: Apache-2.0
"""The command ``vllm``: an engine that ends in any way gives one message and a status."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import subprocess
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

from vllm._kernels import engine
from vllm._kernels.build_info import BuildInfoError
from vllm._kernels.engine import command, failure, stops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_traces() -> Iterator[None]:
    """Undo what the command leaves in this process."""
    factory, before = logging.getLogRecordFactory(), os.environ.get(failure.PLACE)
    yield
    logging.setLogRecordFactory(factory)
    os.environ.pop(failure.PLACE, None)
    if before is not None:
        os.environ[failure.PLACE] = before


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run the command with another function in the engine's place."""

    def run(engines: Callable[[], None], *arguments: str) -> tuple[int, str]:
        for name in ("vllm.entrypoints", "vllm.entrypoints.cli"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        module: Any = types.ModuleType("vllm.entrypoints.cli.main")
        module.main = engines
        sys.modules["vllm.entrypoints.cli"].main = module  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(sys, "argv", ["vllm", *arguments])
        monkeypatch.setattr(engine, "device", lambda: "cpu")
        monkeypatch.setattr(stops, "use", lambda: None)
        status = command.main()
        return status, capsys.readouterr().err

    return run


def raising(error: BaseException) -> Callable[[], None]:
    def engines() -> None:
        raise error

    return engines


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (SystemExit(), 0, ""),
        (SystemExit(2), 2, ""),
        (SystemExit("error: no GPU"), 1, "error: no GPU\n"),
        (KeyboardInterrupt(), 130, "error: stopped by SIGINT\n"),
        (KeyboardInterrupt("terminated"), 143, "error: stopped by SIGTERM\n"),
        (PermissionError(13, "Permission denied"), 1, "error: [Errno 13] Permission denied\n"),
        (ValueError("a bad value"), 1, "error: a bad value\n"),
        (KeyError("k"), 1, "error: KeyError: 'k'\n"),
        (ValueError(), 1, "error: ValueError\n"),
        (ValueError("one\n  two\n\nmore"), 1, "error: one two\n"),
        (ValueError("x" * 2000), 1, f"error: {'x' * 1000} …\n"),
    ],
)
def test_the_end(
    run: Callable[..., tuple[int, str]], error: BaseException, status: int, said: str
) -> None:
    assert run(raising(error), "serve") == (status, said)


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ((), "port 8000"),
        (("--port", "81"), "port 81"),
        (("--port=82",), "port 82"),
        (("--uds", "/run/v"), "/run/v"),
    ],
)
def test_an_address_in_use_is_named(
    run: Callable[..., tuple[int, str]], arguments: tuple[str, ...], place: str
) -> None:
    status, said = run(raising(OSError(98, "Address already in use")), "serve", *arguments)
    assert (status, said) == (
        1,
        f"error: {place} is in use by another program: choose another one\n",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_command_at_once(
    run: Callable[..., tuple[int, str]], number: signal.Signals
) -> None:
    """Also inside of an event loop, and further ones do not disturb the end."""
    before = signal.getsignal(number)

    async def wait() -> None:
        try:
            signal.raise_signal(number)
            raise AssertionError("the signal was ignored")
        finally:
            signal.raise_signal(number)

    def engines() -> None:
        asyncio.run(wait())

    assert run(engines, "serve") == (128 + number, f"error: stopped by {number.name}\n")
    assert signal.getsignal(number) == before


def test_success_says_nothing(run: Callable[..., tuple[int, str]]) -> None:
    assert run(lambda: None, "serve") == (0, "")


class ValidationError(ValueError):
    """As pydantic's."""

    def __str__(self) -> str:
        return "1 validation error for ModelConfig\n  Value error, no [type=value_error, …]"

    def errors(self) -> list[dict[str, Any]]:
        return [{"msg": "Value error, no such architecture"}, {"msg": "Field required"}]


def test_errors_of_the_configuration_without_their_frame(
    run: Callable[..., tuple[int, str]],
) -> None:
    said = "error: no such architecture; Field required\n"
    assert run(raising(ValidationError()), "serve") == (1, said)


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


def test_the_cause_comes_from_the_process_that_failed_first(
    run: Callable[..., tuple[int, str]],
) -> None:
    def engines() -> None:
        subprocess.run([sys.executable, "-c", CHILD], check=True)
        raise RuntimeError("Initialization failed. See root cause above.")

    assert run(engines, "serve") == (1, "error: the cause, ü\n")


def test_a_server_whose_engine_ended_is_an_error(run: Callable[..., tuple[int, str]]) -> None:
    program = CHILD.replace("another process failed", "EngineCore encountered a fatal error.")

    def engines() -> None:
        subprocess.run([sys.executable, "-c", program], check=True)

    assert run(engines, "serve") == (1, "error: the engine ended: the cause, ü\n")


def test_a_process_that_recovers_is_no_error(run: Callable[..., tuple[int, str]]) -> None:
    def engines() -> None:
        subprocess.run([sys.executable, "-c", CHILD], check=True)

    assert run(engines, "serve") == (0, "")


def test_without_a_cause_the_error_itself_is_said(run: Callable[..., tuple[int, str]]) -> None:
    text = "Initialization failed. See root cause above."
    assert run(raising(RuntimeError(text)), "serve") == (1, f"error: {text}\n")


def test_another_error_is_not_replaced(run: Callable[..., tuple[int, str]]) -> None:
    def engines() -> None:
        subprocess.run([sys.executable, "-c", CHILD], check=True)
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


def test_the_traceback_is_for_debugging(
    run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "debug")
    status, said = run(raising(ValueError("a bad value")), "serve")
    assert status == 1
    assert said.startswith("Traceback (most recent call last):\n")
    assert said.endswith("\nerror: a bad value\n")


@pytest.mark.parametrize(
    ("device", "match"),
    [(None, "kernels are not installed: conda install"), ("xpu", "are for xpu, and the engine")],
)
def test_kernels_are_required(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    device: str | None,
    match: str,
) -> None:
    monkeypatch.setattr(engine, "device", lambda: device)
    monkeypatch.setattr(sys, "argv", ["vllm", "serve", "model"])
    assert command.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("error: vllm's kernels")
    assert match in said


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["serve", "{folder}/none"], True),
        (["serve", "--model", "{folder}/none", "--port", "1"], True),
        (["serve", "--port", "1", "--model={folder}/none"], True),
        (["serve", "./none"], True),
        (["serve", "~none/model"], True),
        (["serve", "{folder}"], False),
        (["serve", "owner/none"], False),
        (["serve", "--model"], False),
        (["serve"], False),
        (["bench", "{folder}/none"], False),
    ],
)
def test_a_path_to_nothing_is_no_model(
    run: Callable[..., tuple[int, str]], tmp_path: Path, arguments: list[str], *, missing: bool
) -> None:
    words = [word.format(folder=tmp_path) for word in arguments]
    status, said = run(lambda: None, *words)
    assert status == missing
    assert ("there is no such folder" in said) == missing


def test_a_damaged_record_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def device() -> str:
        raise BuildInfoError("the record is damaged")

    monkeypatch.setattr(engine, "device", device)
    monkeypatch.setattr(sys, "argv", ["vllm", "serve", "model"])
    assert command.main() == 1
    assert "the record is damaged" in capsys.readouterr().err


def test_the_status_is_that_of_shells() -> None:
    assert failure.status_of(signal.SIGTERM) == 143


def test_the_packages_name_the_function(root: Path) -> None:
    for name in ("scripts/vllm_build/wheels/distribution.py", "recipe/vllm/recipe.yaml"):
        assert "vllm._kernels.engine.command:main" in (root / name).read_text(encoding="utf-8")
    assert callable(command.main)


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


def test_help_needs_neither_kernels_nor_a_model(
    run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(lambda: None, "serve", "./none", "--help=all") == (0, "")
    monkeypatch.setattr(sys, "argv", ["vllm", "bench", "-h"])
    monkeypatch.setattr(engine, "device", lambda: None)
    assert command.main() == 0


def test_a_port_in_use_is_named_if_the_command_line_has_it(
    run: Callable[..., tuple[int, str]],
) -> None:
    used = raising(OSError(errno.EADDRINUSE, "Address already in use"))
    for words, said in (
        ((), "port 8000"),
        (("--port=81",), "port 81"),
        (("--uds", "/x"), "/x"),
        (("--config", "c.yaml"), "the server's port"),
    ):
        status, error = run(used, "serve", *words)
        assert (status, error) == (
            1,
            f"error: {said} is in use by another program: choose another one\n",
        )


def test_closed_streams_do_not_replace_the_message(
    run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert run(raising(ValueError("bad")), "serve") == (1, "error: bad\n")


def test_errors_of_single_requests_do_not_count(run: Callable[..., tuple[int, str]]) -> None:
    status, said = run(lambda: failure.note(ValueError("a bad request")), "serve")
    assert (status, said) == (0, "")
