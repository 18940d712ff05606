# SPDX-License-Identifier: Apache-2.0
"""Commands with closed or full streams, without a current folder, and with early signals."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from command_runs import HEARING

from vllm_build.util import errors
from vllm_build.util.processes import signals

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLOSED, LOST, GONE = (
    errors.ResourceError.exit_code,
    errors.ResourceError.exit_code,
    128 + signal.SIGPIPE,
)
COMMAND = [sys.executable, "-I", "-X", "utf8", "-m", "vllm_build"]
#: Commands, their usual status, and whether they write to stdout and to stderr.
COMMANDS = {
    "settings --json": (0, True, False),
    "settings": (0, False, True),
    "plan --device cpu --json": (0, True, False),
    "archs --kernel 8.0 --targets 8.0 --json": (0, True, False),
    "--help": (0, True, False),
    "nosuch --json": (errors.ConfigurationError.exit_code, True, True),
    "nosuch -v": (errors.ConfigurationError.exit_code, False, True),
}
#: Redirections of a shell: the streams that they affect, and the exit status if the command writes
#: to stdout or stderr. None means that the usual status remains.
STREAMS: dict[str, tuple[str, int | None, int | None]] = {
    "{} >&-": ("out", CLOSED, None),
    "{} >/dev/full": ("out", LOST, None),
    "{} 2>&-": ("err", None, None),
    "{} <&-": ("in", None, None),
    "{} >&- 2>&- <&-": ("out err in", CLOSED, None),
    "{} 2>/dev/full": ("err", None, LOST),
    "{} >/dev/full 2>/dev/full": ("out err", LOST, LOST),
}


def shell(line: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", line], capture_output=True, text=True, check=False, **options
    )


@pytest.fixture(autouse=True)
def _usual(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("VLLM_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("line", STREAMS)
@pytest.mark.parametrize("words", COMMANDS)
def test_streams_that_cannot_be_written(words: str, line: str, tmp_path: Path) -> None:
    usual, writes_out, writes_err = COMMANDS[words]
    named, status_out, status_err = STREAMS[line]
    expected = usual
    if usual == 0 and status_err is not None and writes_err:
        expected = status_err
    if status_out is not None and writes_out:
        expected = status_out
    done = shell(line.format(f"{shlex.join(COMMAND)} {words}"), cwd=tmp_path)
    assert done.returncode == expected, done.stderr
    assert "Traceback" not in done.stderr or words.endswith("-v")
    assert "Exception ignored" not in done.stderr
    assert "NoneType" not in done.stderr
    if expected == status_out and "err" not in named.split():
        assert "the answer cannot be written" in done.stderr
    if "out" not in named and "--json" in words:
        json.loads(done.stdout)


@pytest.mark.parametrize(
    "words", ["settings --json", "--help", "plan --device cpu --json", "nosuch --json"]
)
def test_a_reader_that_has_gone(words: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(
            [*COMMAND, *words.split()], stdout=pipe, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == GONE
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("words", COMMANDS)
def test_a_current_folder_that_is_gone(words: str, tmp_path: Path) -> None:
    done = shell(
        f"mkdir x && cd x && rmdir ../x && exec {shlex.join(COMMAND)} {words}", cwd=tmp_path
    )
    assert done.returncode == errors.ConfigurationError.exit_code
    assert done.stderr.startswith(
        "error: the current folder cannot be used: No such file or directory\n  expected: "
    )
    assert "  to do:    change to a folder" in done.stderr
    assert "Traceback" not in done.stderr
    if "--json" in words:
        assert json.loads(done.stdout)["exit_code"] == done.returncode
    else:
        assert not done.stdout


def test_files_do_not_get_the_numbers_of_closed_streams(tmp_path: Path) -> None:
    """Otherwise the next opened file would get these numbers, and programs would write to it."""
    opened = "os.open('file', os.O_CREAT | os.O_WRONLY)"
    code = (
        "import os; from vllm_build.util import streams; streams.open_missing(); "
        f"print({opened}, file=open('n', 'w'))"
    )
    line = shlex.join([sys.executable, "-c", code])
    assert shell(f"{line} <&- >&- 2>&-", cwd=tmp_path).returncode == 0
    assert int((tmp_path / "n").read_text(encoding="utf-8")) > 2


# Signals that arrive before the handlers are installed


def _blocked(numbers: tuple[signal.Signals, ...]) -> Callable[[], None]:
    """Signals are blocked from the first instruction until the command unblocks them."""

    def before() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        for number in numbers:
            os.kill(os.getpid(), number)

    return before


@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize(
    "numbers",
    [(number,) for number in signals.ENDING] + [(signal.SIGTERM, signal.SIGHUP)],
    ids=lambda numbers: "-".join(number.name for number in numbers),
)
def test_a_signal_before_the_handlers(
    numbers: tuple[signal.Signals, ...], tmp_path: Path, *, isolated: bool
) -> None:
    """A pending signal survives the exec that isolates the interpreter."""
    command = COMMAND if isolated else [sys.executable, "-m", "vllm_build"]
    done = subprocess.run(
        [*command, "settings", "--json"],
        preexec_fn=_blocked(numbers),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    first = min(numbers)
    assert done.returncode == 128 + first
    assert done.stderr == f"error: interrupted by {first.name}\n"
    assert json.loads(done.stdout)["exit_code"] == 128 + first


def test_the_first_signal_decides_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closing terminal sends SIGHUP, and its program may send SIGTERM until the command ends."""
    ended: list[int] = []
    handler = signals._Handler()
    monkeypatch.setattr(os, "_exit", ended.append)
    with pytest.raises(signals.Interrupted):
        handler(signal.SIGHUP, None)
    handler(signal.SIGTERM, None)
    assert not ended
    handler(signal.SIGTERM, None)
    assert ended == [128 + signal.SIGHUP]


def test_a_signal_while_the_end_is_written(tmp_path: Path) -> None:
    """A signal between the message and the end of the process does not change the status."""
    code = (
        "import os, signal, sys; from vllm_build import entry; from vllm_build.util.processes "
        "import signals\n"
        "before = entry._end\n"
        "def end(*words):\n"
        "    status = before(*words); os.kill(os.getpid(), signal.SIGTERM); return status\n"
        "entry._end = end\n"
        "def folder(): os.kill(os.getpid(), signal.SIGHUP)\n"
        "entry._require_folder = folder\n"
        "entry._isolate = lambda words: None\n"
        "status = entry.main(['settings'])\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.exit(status)"
    )
    done = subprocess.run(
        [*HEARING, sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGHUP, "error: interrupted by SIGHUP\n")
