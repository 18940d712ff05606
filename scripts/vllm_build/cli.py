# SPDX-License-Identifier: Apache-2.0
"""The ``vllm-build`` command."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from vllm_build import failures, signals
from vllm_build import settings as settings_table
from vllm_build.commands import (
    archs,
    audit,
    cache,
    digest,
    doctor,
    fetch,
    install,
    jobs,
    package,
    plan,
    publish,
    render,
    reuse,
    settings,
    stamp,
    store,
    test_package,
    toolchain,
    version,
)
from vllm_build.console import Console
from vllm_build.errors import ConfigurationError, VllmBuildError, statuses
from vllm_build.redaction import traceback_of

if TYPE_CHECKING:
    from collections.abc import Sequence

#: In the order that `vllm-build --help` lists them.
COMMANDS = (
    package,
    toolchain,
    fetch,
    render,
    plan,
    archs,
    jobs,
    test_package,
    install,
    stamp,
    digest,
    reuse,
    audit,
    publish,
    store,
    cache,
    settings,
    version,
    doctor,
)


class _Parser(argparse.ArgumentParser):
    """A parser that raises its complaints, so that they end as every other error does: one message, one status, one document."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(f"{self.prog}: {message}", expected=self.format_usage().strip(), remedy=f"{self.prog} --help")


def _common() -> _Parser:
    common = _Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="write the result, or the error, to stdout as one JSON document")
    common.add_argument("-v", "--verbose", action="store_true", help="show the tools' output and tracebacks of errors")
    return common


def _statuses() -> str:
    return "exit status:\n" + "\n".join(f"  {status:<6} {meaning}" for status, meaning in statuses())


def parser() -> argparse.ArgumentParser:
    """The command line, one subcommand per module of :mod:`vllm_build.commands`."""
    top = _Parser(
        prog="vllm-build",
        description="Builds vllm's kernels and conda packages.",
        epilog=_statuses(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = top.add_subparsers(required=True, metavar="COMMAND")
    common = _common()
    for command in COMMANDS:
        sub = subparsers.add_parser(command.NAME, help=command.HELP, description=command.HELP, parents=[common])
        command.add_arguments(sub)
        sub.set_defaults(command=command)
    return top


def _run(argv: Sequence[str], console: Console) -> int:
    """Run one command; returns its exit status.

    Raises:
        VllmBuildError: it failed. BrokenPipeError: the reader of the output has gone.
    """
    given: dict[str, object] = {}
    try:
        arguments = parser().parse_args(argv)
        console.json_mode, console.verbose = arguments.json, arguments.verbose
        given.update(vars(arguments))
        # Every value before any work; these two show what is malformed themselves.
        if arguments.command not in (settings, doctor):
            settings_table.require()
        return int(arguments.command.run(arguments, console))
    except BrokenPipeError:
        raise
    except Exception as error:
        failure = failures.of_exception(error, given, (variable.name for variable in settings_table.variables()))
        if failure is error:
            raise
        raise failure from error


def _describe(failure: VllmBuildError) -> dict[str, Any]:
    return {
        "error": type(failure).__name__,
        "exit_code": failure.exit_code,
        "message": failure.message,
        "expected": failure.expected,
        "remedy": failure.remedy,
    }


def _write(document: Any, console: Console) -> int:
    """Write the one document of ``--json``; returns 0, or the status of what went wrong with stdout."""
    try:
        console.write(document)
    except BrokenPipeError:
        return _closed()
    except OSError as error:
        failure = failures.of_os_error(error, {})
        _discard()
        console.error(f"the answer cannot be written: {failure}")
        return failure.exit_code
    return 0


def _discard() -> None:
    """Give up on stdout and stderr as they are: the interpreter writes what is left in their buffers when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
            continue
        with contextlib.suppress(OSError, ValueError):
            os.dup2(null, stream.fileno())
    os.close(null)


def _closed() -> int:
    _discard()
    return 128 + signal.SIGPIPE


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit status (see :mod:`vllm_build.errors`)."""
    words = sys.argv[1:] if argv is None else argv
    # For a line that cannot be parsed: it gives a document, too.
    before_end = words[: words.index("--")] if "--" in words else words
    console = Console(json_mode="--json" in before_end, verbose=bool({"-v", "--verbose"} & set(before_end)))
    try:
        with signals.raised():
            status, failure = _end(words, console)
            signals.settle()
    except KeyboardInterrupt as caught:
        signals.settle()
        interrupt = caught if isinstance(caught, signals.Interrupted) else signals.Interrupted(signal.SIGINT)
        status, failure = interrupt.status, interrupt.document()
        with contextlib.suppress(BrokenPipeError):
            console.error(f"{interrupt}; what was complete is kept, the rest is removed at the next start")
    except BrokenPipeError:
        return _closed()
    if not console.json_mode:
        return status
    document = console.document
    if failure is not None:
        document = failure if document is None else failure | {"result": document}
    return _write(document, console) or status


def _end(words: Sequence[str], console: Console) -> tuple[int, dict[str, Any] | None]:
    """Run one command and say why it failed; returns its exit status, and the failure for ``--json``."""
    try:
        return _run(words, console), None
    except VllmBuildError as failure:
        if console.verbose:
            sys.stderr.write(traceback_of(failure))
        console.error(str(failure))
        return failure.exit_code, _describe(failure)


if __name__ == "__main__":
    sys.exit(main())
