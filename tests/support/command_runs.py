# SPDX-License-Identifier: Apache-2.0
"""Runs of the ``vllm-build`` command as users start it: in processes of their own, which leave nothing behind."""

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
#: Every status that the documentation has for a failure that is not our own.
DOCUMENTED = {int(status) for status, _ in errors.statuses() if status.isdigit()} - {
    errors.InternalError.exit_code
}
MARK = "VLLM_TEST_MARK"
#: A background job of a shell ignores SIGINT and SIGQUIT, and hands that on to the tests and to
#: what they start.
HEARING = (shutil.which("env") or "env", "--default-signal=HUP,INT,QUIT,TERM")


def marked(mark: str) -> list[int]:
    """Processes, zombies apart, that were started with ``mark`` in their environment."""
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
    """Whether all processes with ``mark`` end within ``seconds``."""
    deadline = time.monotonic() + seconds
    while marked(mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@dataclass
class Run:
    """One run, and what it said."""

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
        """Its exit status, after its end."""
        assert self.process is not None
        assert self.process.returncode is not None
        return self.process.returncode

    def start(self) -> Run:
        """Start it, with ``--json``."""
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
        """Wait until it handles signals, or has ended."""
        assert self.process is not None
        while self.process.poll() is None:
            # Until then it is env, or an interpreter that starts.
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
            caught = int(status.partition("SigCgt:\t")[2].split()[0], 16)
            if caught >> (signal.SIGHUP - 1) & 1:  # Python itself handles SIGINT
                break
            time.sleep(0.01)
        return self

    def finish(self) -> int:
        """Wait for its end; returns the status."""
        assert self.process is not None
        self.out, self.err = self.process.communicate(timeout=240)
        return self.process.returncode

    def run(self) -> int:
        """Start it and wait for its end."""
        return self.start().finish()

    def document(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)


def clean_environment() -> dict[str, str]:
    """What a build needs of this process's environment, without a word about where things lie."""
    kept = ("PATH", "LANG", "SSL_CERT_FILE", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
    return {name: os.environ[name] for name in kept if name in os.environ}
