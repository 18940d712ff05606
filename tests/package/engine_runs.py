# SPDX-License-Identifier: Apache-2.0
"""Runs of the command ``vllm`` with another function in the engine's place.

A test module imports the fixtures; their names there have no suffix ``_fixture``.
"""

from __future__ import annotations

import logging
import os
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

from vllm._kernels import engine
from vllm._kernels.engine import command, failure, stops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True, name="no_traces")
def no_traces_fixture() -> Iterator[None]:
    """Undo what the command leaves in this process."""
    factory, before = logging.getLogRecordFactory(), os.environ.get(failure.PLACE)
    yield
    logging.setLogRecordFactory(factory)
    os.environ.pop(failure.PLACE, None)
    if before is not None:
        os.environ[failure.PLACE] = before


@pytest.fixture(name="run")
def run_fixture(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run the command with another function in the engine's place."""

    def run_command(engines: Callable[[], None], *arguments: str) -> tuple[int, str]:
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

    return run_command


def raising(error: BaseException) -> Callable[[], None]:
    def engines() -> None:
        raise error

    return engines
