# SPDX-License-Identifier: Apache-2.0
"""Writes a command's output: progress on a terminal, plain lines in a pipe, or one JSON document.

Output for people goes to stderr. stdout contains only the answer: a JSON document or the requested
text.
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

#: Width of a table in a pipe, in columns.
PIPE_WIDTH = 100
#: Smallest width of a table, also in a narrower terminal.
_LEAST_WIDTH = 40


@dataclass
class Counter:
    """The progress of one task; does nothing if no progress is shown."""

    progress: Progress | None
    task: TaskID | None

    def advance(self, amount: float = 1) -> None:
        """Count ``amount`` parts as done."""
        if self.progress is not None and self.task is not None:
            self.progress.advance(self.task, amount)


def answer(text: str) -> None:
    """Write ``text`` to stdout, redacted.

    Raises:
        BrokenPipeError: the reader of stdout has gone.
        ResourceError: stdout cannot be written to: it is closed, or the disk is full.
    """
    try:
        sys.stdout.write(redact(text))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ResourceError(
            f"the answer cannot be written: {error.strerror}",
            expected="an open standard output with enough free space",
            remedy="leave stdout open, or redirect it to a disk with free space",
        ) from error


class _Screen(RichConsole):
    """A rich console that reports a broken pipe to the command line, which sets the exit status."""

    def on_broken_pipe(self) -> None:
        """Raise the error that rich caught."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


@dataclass
class Console:
    """Human output on stderr, machine output on stdout.

    Attributes:
        json_mode: the caller asked for JSON; tables and results then appear only in the document.
        verbose: show details (log lines of the tools that run) and tracebacks of errors.
        quiet: show only warnings and errors.
        seconds: the wall time of every step so far, by title.
        document: the command's answer for ``--json``.
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
        """Whether stderr is a terminal."""
        return self._rich.is_terminal

    def info(self, message: str) -> None:
        """Write a message, unless the console is quiet."""
        if not self.quiet:
            self._rich.print(redact(message), markup=False)

    def detail(self, message: str) -> None:
        """Write a log line of a tool: with ``-v``, and always in a pipe, which keeps a full log."""
        if not self.quiet and (self.verbose or not self.interactive):
            self._rich.print(
                "    " + redact(message), markup=False, style="dim" if self.interactive else None
            )

    def warn(self, message: str) -> None:
        """Write a warning: the work continues."""
        self._rich.print("warning: " + redact(message), markup=False, style="yellow")

    def error(self, message: str) -> None:
        """Write an error: the work stopped."""
        self._rich.print("error: " + redact(message), markup=False, style="bold red")

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step, run the block, then report its time and whether it completed."""
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
        """Show a progress bar for ``total`` parts on a terminal, or only the title in a pipe."""
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
        """Show the bytes and rate of a transfer of unknown size, on a terminal only."""
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
        """The largest width of a table: the terminal's; fixed in a pipe, so that logs agree."""
        return max(self._rich.width, _LEAST_WIDTH) if self.interactive else PIPE_WIDTH

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table wrapped to ``width``.

        In JSON mode it prints nothing: the caller's document has the same facts.
        """
        self.text(
            title,
            text_table.layout(
                columns, [[redact(cell) for cell in row] for row in rows], self.width
            ),
        )

    def entries(self, title: str, items: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> None:
        """Print each item as its head and one labelled paragraph per field.

        Use it for texts that are too long for the columns of a table.
        """
        shown = [
            (redact(head), [(label, redact(text)) for label, text in fields])
            for head, fields in items
        ]
        self.text(title, text_table.entries(shown, self.width))

    def text(self, title: str, lines: Sequence[str]) -> None:
        """Print lines as they are, below a title; in JSON mode print nothing."""
        if self.json_mode or self.quiet:
            return
        for line in text_table.wrap(redact(title), self.width):
            self._rich.print(line, markup=False, style="bold" if self.interactive else None)
        for line in lines:
            self._rich.print(redact(line), markup=False)

    def output(self, text: str) -> None:
        """Write the answer itself to stdout.

        Raises:
            BrokenPipeError, ResourceError: as for :func:`answer`.
        """
        answer(text + "\n")

    def json(self, document: Any) -> None:
        """Answer with ``document``, its keys in the given order.

        In JSON mode ``cli.main`` writes it at the end of the command, together with a failure if
        there is one, so a command writes exactly one document. Otherwise this method writes it at
        once: the answers of some commands are always JSON.

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
