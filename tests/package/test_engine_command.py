# SPDX-License-Identifier: Apache-2.0
"""The command ``vllm``: an engine that ends in any way gives one message and a status."""

from __future__ import annotations

import asyncio
import errno
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
from engine_runs import no_traces_fixture, raising, run_fixture  # noqa: F401 -- fixtures

from vllm._kernels import engine
from vllm._kernels.build_info import BuildInfoError
from vllm._kernels.engine import command

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
        (("--config", "c.yaml"), "the server's port"),
    ],
)
def test_an_address_in_use_is_named(
    run: Callable[..., tuple[int, str]], arguments: tuple[str, ...], place: str
) -> None:
    status, said = run(
        raising(OSError(errno.EADDRINUSE, "Address already in use")), "serve", *arguments
    )
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


def test_the_packages_name_the_function(root: Path) -> None:
    for name in ("scripts/vllm_build/wheels/distribution.py", "recipe/vllm/recipe.yaml"):
        assert "vllm._kernels.engine.command:main" in (root / name).read_text(encoding="utf-8")
    assert callable(command.main)


def test_help_needs_neither_kernels_nor_a_model(
    run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(lambda: None, "serve", "./none", "--help=all") == (0, "")
    monkeypatch.setattr(sys, "argv", ["vllm", "bench", "-h"])
    monkeypatch.setattr(engine, "device", lambda: None)
    assert command.main() == 0


def test_closed_streams_do_not_replace_the_message(
    run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert run(raising(ValueError("bad")), "serve") == (1, "error: bad\n")
