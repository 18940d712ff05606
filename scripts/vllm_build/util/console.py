# SPDX-License-Identifier: Apache-2.0
"""What people and machines see: progress on a terminal, plain lines in a pipe, one JSON document on request.

Everything meant for people goes to stderr, so that stdout holds nothing but the answer: a JSON
document or the text that was asked for.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from vllm_build.util import text_table
from vllm_build.util.errors import ResourceError
from vllm_build.util.redaction import redact, redact_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Columns of a table in a pipe.
PIPE_WIDTH = 100
#: Columns of a table in a terminal that is narrower still.
_LEAST_WIDTH = 40


@dataclass
class Counter:
    """Progress of one piece of work with a known number of parts."""

    progress: Progress | None
    task: TaskID | None

    def advance(self, amount: float = 1) -> None:
        """Count ``amount`` parts as done."""
        if self.progress is not None and self.task is not None:
            self.progress.advance(self.task, amount)


def answer(text: str) -> None:
    """Write ``text`` to stdout, redacted.

    Raises:
        BrokenPipeError: its reader has gone.
        ResourceError: it cannot be written: stdout is closed, or the disk is full.
    """
    try:
        sys.stdout.write(redact(text))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ResourceError(
            f"the answer cannot be written: {error.strerror}",
            expected="a standard output that is open, and room for the answer",
            remedy="leave stdout open, or send it to a file on a disk with room",
        ) from error


class _Screen(RichConsole):
    """A rich console that leaves a broken pipe to the command line, which knows the exit status for it."""

    def on_broken_pipe(self) -> None:
        """The reader of the messages has gone."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


@dataclass
class Console:
    """Human output on stderr, machine output on stdout.

    Attributes:
        json_mode: the caller asked for JSON; tables and results then appear there and nowhere else.
        verbose: details (log lines of the tools that run) are shown, and tracebacks of errors.
        seconds: the wall time of every step so far, by title.
        document: what the command answers, for ``--json``.
    """

    json_mode: bool = False
    verbose: bool = False
    quiet: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    document: Any = None
    _rich: RichConsole = field(
        default_factory=lambda: _Screen(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    )

    @property
    def interactive(self) -> bool:
        """Whether a person watches a terminal."""
        return self._rich.is_terminal

    def info(self, message: str) -> None:
        """Say one thing a person should know."""
        if not self.quiet:
            self._rich.print(redact(message), markup=False)

    def detail(self, message: str) -> None:
        """Pass on a log line of a tool; shown with ``-v`` and always in a pipe, where a log is what is wanted."""
        if not self.quiet and (self.verbose or not self.interactive):
            self._rich.print(
                "    " + redact(message), markup=False, style="dim" if self.interactive else None
            )

    def warn(self, message: str) -> None:
        """Say what is odd but does not stop the work."""
        self._rich.print("warning: " + redact(message), markup=False, style="yellow")

    def error(self, message: str) -> None:
        """Say why the work stopped."""
        self._rich.print("error: " + redact(message), markup=False, style="bold red")

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step, run the block, then say how long it took; failed steps say so too."""
        begin, title = time.monotonic(), redact(title)
        self.info(f"==> {title}")
        done = False
        try:
            if self.interactive and not self.quiet:
                with self._rich.status(title):
                    yield
            else:
                yield
            done = True
        finally:
            took = time.monotonic() - begin
            self.seconds[title] = self.seconds.get(title, 0.0) + took
            self.info(f"<== {title}: {'done' if done else 'stopped'} after {took:.1f} s")

    @contextmanager
    def progress(self, total: float, title: str) -> Iterator[Counter]:
        """Show a bar for ``total`` parts on a terminal; in a pipe only the title appears."""
        if not self.interactive or self.quiet:
            self.info(title)
            yield Counter(None, None)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._rich) as progress:
            yield Counter(progress, progress.add_task(redact(title), total=total))

    @contextmanager
    def transfer(self, title: str) -> Iterator[Counter]:
        """Show bytes and their rate on a terminal, for a transfer whose size is not known; in a pipe nothing appears."""
        if not self.interactive or self.quiet:
            yield Counter(None, None)
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._rich) as progress:
            yield Counter(progress, progress.add_task(redact(title), total=None))

    @property
    def width(self) -> int:
        """Columns that tables fill at most: the terminal's, or in a pipe always as many, so that logs are the same everywhere."""
        return max(self._rich.width, _LEAST_WIDTH) if self.interactive else PIPE_WIDTH

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table for people, wrapped to ``width``; in JSON mode the caller's document carries the same facts."""
        self.text(
            title,
            text_table.layout(
                columns, [[redact(cell) for cell in row] for row in rows], self.width
            ),
        )

    def entries(self, title: str, items: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> None:
        """Print each item as its head and, below it, one labelled paragraph a field; for what is too long for the columns of a table."""
        shown = [
            (redact(head), [(label, redact(text)) for label, text in fields])
            for head, fields in items
        ]
        self.text(title, text_table.entries(shown, self.width))

    def text(self, title: str, lines: Sequence[str]) -> None:
        """Print lines that are laid out already, below a title; in JSON mode nothing."""
        if self.json_mode or self.quiet:
            return
        for line in text_table.wrap(redact(title), self.width):
            self._rich.print(line, markup=False, style="bold" if self.interactive else None)
        for line in lines:
            self._rich.print(redact(line), markup=False)

    def output(self, text: str) -> None:
        """Write the answer itself to stdout.

        Raises:
            BrokenPipeError, ResourceError: of :func:`answer`.
        """
        answer(text + "\n")

    def json(self, document: Any) -> None:
        """Give ``document`` as the answer, keys in the order given.

        In JSON mode ``cli.main`` writes it when the command has ended, with the failure if there is
        one: one command gives one document. Otherwise it is written at once, by commands whose
        answer is JSON anyway.

        Raises:
            AssertionError: a command answers twice in JSON mode.
        """
        if not self.json_mode:
            self.write(document)
        elif self.document is None:
            self.document = document
        else:
            raise AssertionError("a command has one answer")

    def write(self, document: Any) -> None:
        """Write ``document`` to stdout as JSON."""
        self.output(json.dumps(redact_document(document), indent=2))
