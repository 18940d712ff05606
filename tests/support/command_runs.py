# SPDX-License-Identifier: Apache-2.0
"""Runs of the ``vllm-build`` command in processes, as users start it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_build.util import errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VLLM_BUILD = str(Path(sys.executable).with_name("vllm-build"))
#: Every exit status in the documentation that is not an internal error.
DOCUMENTED = {int(status) for status, _ in errors.statuses() if status.isdigit()} - {
    errors.InternalError.exit_code
}
MARK = "VLLM_TEST_MARK"
#: A background job of a shell ignores SIGINT and SIGQUIT, and the processes that it starts inherit
#: this. ``env`` restores the default.
HEARING = (shutil.which("env") or "env", "--default-signal=HUP,INT,QUIT,TERM")


def marked(mark: str) -> list[int]:
    """The processes with ``mark`` in their environment, except zombies."""
    found, text = [], f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (
                text in (folder / "environ").read_bytes()
                and (folder / "stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
            ):
                found.append(int(folder.name))
    return found


def gone(mark: str, seconds: float) -> bool:
    """Wait for the end of all processes with ``mark``; whether they end within ``seconds``."""
    deadline = time.monotonic() + seconds
    while marked(mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@dataclass
class Run:
    """One run, and its output."""

    words: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    command: Sequence[str] = (VLLM_BUILD,)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    out: str = ""
    err: str = ""
    process: subprocess.Popen[str] | None = None

    @property
    def status(self) -> int:
        """The exit status, after the end of the process."""
        assert self.process is not None
        assert self.process.returncode is not None
        return self.process.returncode

    def start(self) -> Run:
        """Start the process, with ``--json``."""
        self.process = subprocess.Popen(
            [*HEARING, *self.command, *self.words, "--json"],
            env={**self.env, MARK: self.mark},
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self

    def ready(self) -> Run:
        """Wait until the process handles signals, or has ended."""
        assert self.process is not None
        while self.process.poll() is None:
            # Before that, it is env or a starting interpreter.
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
            caught = int(status.partition("SigCgt:\t")[2].split()[0], 16)
            if caught >> (signal.SIGHUP - 1) & 1:  # Python itself handles SIGINT
                break
            time.sleep(0.01)
        return self

    def finish(self) -> int:
        """Wait for the end of the process; returns the exit status."""
        assert self.process is not None
        self.out, self.err = self.process.communicate(timeout=240)
        return self.process.returncode

    def run(self) -> int:
        """Start the process and wait for its end."""
        return self.start().finish()

    def document(self) -> Any:
        """The JSON document on stdout."""
        return json.loads(self.out)


def clean_environment() -> dict[str, str]:
    """The variables of this process that a build needs, without any that name folders to use."""
    kept = ("PATH", "LANG", "SSL_CERT_FILE", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
    return {name: os.environ[name] for name in kept if name in os.environ}
