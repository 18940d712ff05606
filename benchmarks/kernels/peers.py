# SPDX-License-Identifier: Apache-2.0
"""The child processes, from the parent's side.

They are started when needed and restarted after a crash.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kernels.cases import Case

NAMES = ("ours", "official", "eager", "compile")
FOLDER = Path(__file__).resolve().parents[1]


#: Does the part of ``conda activate`` that sets CXX for compilers.
_ACTIVATE = (
    'for f in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do [ -e "$f" ] && . "$f"; done; exec "$@"'
)


@dataclass(frozen=True)
class Runner:
    """An interpreter and its environment.

    Attributes:
        python: the interpreter.
        env: environment variables of its programs.
        conda: whether the environment is a conda prefix that has not been activated.
    """

    python: Path
    env: Mapping[str, str]
    conda: bool

    def command(self, *words: str) -> list[str]:
        """A command line for the environment."""
        return ["bash", "-c", _ACTIVATE, "bench", *words] if self.conda else list(words)


@dataclass
class Peer:
    """An implementation in its own process.

    Attributes:
        name: one of ``NAMES``.
        runner: the interpreter that runs it.
        libraries: libraries that the official peer loads.
        device: "cpu" or "cuda".
        facts: facts that the process reported.
        module: the program of the process.
        arguments: more arguments of the program.
        folder: where the program is found; None: the folder of the benchmarks.
        log: the file for the messages of the process; None: a temporary one.
    """

    name: str
    runner: Runner
    libraries: Sequence[Path] = ()
    device: str = "cpu"
    facts: dict[str, Any] = field(default_factory=dict)
    module: str = "kernels.child"
    arguments: Sequence[str] = ()
    folder: Path | None = None
    log: Path | None = None
    _process: subprocess.Popen[str] | None = None
    _errors: IO[str] | None = None

    def start(self) -> None:
        """Start the process, wait until its ops are loaded, and set ``facts``."""
        text: Any = {"encoding": "utf-8", "errors": "replace"}
        self._errors = self.log.open("w+", **text) if self.log else None
        self._errors = self._errors or tempfile.TemporaryFile("w+", **text)  # noqa: SIM115 - lives as long as the process
        words = [
            str(self.runner.python),
            "-m",
            self.module,
            self.name,
            self.device,
            *map(str, self.libraries),
            *self.arguments,
        ]
        command, env = self.runner.command(*words), dict(self.runner.env)
        self._process = subprocess.Popen(
            command,
            cwd=self.folder or FOLDER,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            # With its own children it is a group that stop() ends.
            start_new_session=True,
        )
        self.facts = self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process is not None  # noqa: S101 - started above
        assert self._process.stdout is not None  # noqa: S101
        line = self._process.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self._process.communicate()
        status, words = self._process.returncode, self._last_words()
        self.stop()
        return {"failed": f"the process ended: {_ending(status)}; {words}"}

    def _last_words(self) -> str:
        assert self._errors is not None  # noqa: S101 - opened in start()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return lines[-1][:200] if lines else "it said nothing"

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and wait for the answer; a crashed process is restarted first."""
        if self._process is None:
            self.start()
        if self._process is None or self._process.stdin is None:
            return self.facts
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; _read reports how
        answer = self._read()
        if answer.pop("restart", False):
            self.stop()
        return answer

    def prepare(self, case: Case, do: str = "case") -> dict[str, Any]:
        """Prepare a case; with ``do="fit"``, only check whether the library accepts it."""
        return self.ask(
            {
                "do": do,
                "op": case.op,
                "dtype": case.dtype,
                "shape": case.shape,
                "variant": case.variant,
            }
        )

    def stop(self) -> None:
        """End the process and its children."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            # Waits, and closes the pipes.
            self._process.communicate()
            self._process = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None


def _ending(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
