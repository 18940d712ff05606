# SPDX-License-Identifier: Apache-2.0
"""Signals become an exception, and a program ends with the documented status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest
from command_runs import HEARING, gone

from vllm_build.util.processes import signals

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("measured")

HANDLED = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from vllm_build.util.processes import signals
try:
    with signals.raised():
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            print("cleaning", flush=True)
            for _ in range(int(sys.argv[2])):
                time.sleep(0.1)
except signals.Interrupted as interrupt:
    sys.exit(interrupt.status)
"""


@pytest.mark.parametrize("number", signals.ENDING, ids=lambda number: number.name)
def test_a_signal_is_an_exception(number: signal.Signals, root: Path) -> None:
    command = [*HEARING, sys.executable, "-c", HANDLED, str(root / "scripts"), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.communicate()[0] == "cleaning\n"
    assert process.returncode == 128 + number


def test_the_third_signal_ends_at_once(root: Path) -> None:
    command = [sys.executable, "-c", HANDLED, str(root / "scripts"), "6000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "cleaning\n"
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        process.wait(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM


def test_a_signal_while_a_child_is_started_waits() -> None:
    seen = []

    def start() -> None:
        with signals.raised():
            with signals.deferred(), signals.deferred():
                os.kill(os.getpid(), signal.SIGTERM)
                seen.append("noted down")
            seen.append("not reached")

    with pytest.raises(signals.Interrupted) as caught:
        start()
    assert seen == ["noted down"]
    assert caught.value.number == signal.SIGTERM


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals.raised(), signals.raised():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


FRONT_END = """
import subprocess, sys
hook = '''
import sys
sys.path.insert(0, sys.argv[1])
from vllm_build.util.processes import children, signals
with signals.ending("the build"), signals.ending_with_parent():
    with children.Child(["bash", "-c", "echo started; sleep 619"]): pass
'''
subprocess.run([sys.executable, "-c", hook, sys.argv[1]])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_hook_ends_with_its_front_end(number: signal.Signals, root: Path, mark: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(FRONT_END), str(root / "scripts")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(number)
        process.wait()
        assert gone(mark, 20)


@pytest.mark.usefixtures("hearing")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_an_end_that_setuptools_made_of_a_signal_keeps_its_status(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_commands() -> None:
        try:
            with signals.ending("CMake"):
                os.kill(os.getpid(), number)
        except KeyboardInterrupt as interrupt:
            message = "interrupted"
            raise SystemExit(message) from interrupt

    with pytest.raises(SystemExit) as caught, signals.ending("the build"):
        run_commands()
    assert caught.value.code == 128 + number
    assert "the build was interrupted" in capsys.readouterr().err


def test_another_end_is_left_alone() -> None:
    with pytest.raises(SystemExit) as caught, signals.ending("the build"):
        raise SystemExit(3)
    assert caught.value.code == 3
