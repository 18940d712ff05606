# SPDX-License-Identifier: Apache-2.0
"""The ``vllm-build`` command."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from vllm_build.settings import build_settings
from vllm_build.settings.invocation import Invocation
from vllm_build.util import environ, failures, streams
from vllm_build.util.console import Console, answer
from vllm_build.util.errors import ConfigurationError, ResourceError, VllmBuildError, statuses
from vllm_build.util.processes import signals
from vllm_build.util.redaction import say, traceback_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

#: Name of each command -> its module below ``vllm_build.commands``, in the order of the help. Only
#: the module of the command that runs is imported: all of them take half a second.
COMMANDS: Mapping[str, str] = {
    "package": "packages.package",
    "toolchain": "packages.toolchain",
    "fetch": "packages.fetch",
    "engine": "packages.engine",
    "render": "packages.render",
    "plan": "explain.plan",
    "archs": "explain.archs",
    "jobs": "explain.jobs",
    "test-package": "packages.test_package",
    "install": "packages.install",
    "stamp": "packages.stamp",
    "digest": "explain.digest",
    "reuse": "precompiled.reuse",
    "audit": "precompiled.audit",
    "publish": "precompiled.publish",
    "store": "precompiled.store",
    "cache": "precompiled.cache",
    "settings": "explain.settings",
    "version": "explain.version",
    "doctor": "explain.doctor",
}
#: These report malformed variables themselves.
_TOLERANT = ("settings", "doctor")


class _Parser(argparse.ArgumentParser):
    """A parser that raises errors, so that they are reported like all others."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            f"{self.prog}: {message}",
            expected=self.format_usage().strip(),
            remedy=f"{self.prog} --help",
        )

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write the help; argparse itself would ignore that it cannot be written."""
        answer(message) if file is sys.stdout else say(message)


def _common() -> _Parser:
    common = _Parser(add_help=False)
    common.add_argument(
        "--json",
        action="store_true",
        help="write the result, or the error, to stdout as one JSON document",
    )
    common.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="show the tools' output and tracebacks of errors",
    )
    return common


def _statuses() -> str:
    return "exit status:\n" + "\n".join(
        f"  {status:<6} {meaning}" for status, meaning in statuses()
    )


def load(name: str) -> ModuleType:
    """The module of a command."""
    # A signal's exception while a C module is initialised would turn into another exception.
    with signals.deferred():
        return importlib.import_module(f"vllm_build.commands.{COMMANDS[name]}")


def parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of a command line, with all commands unless its first word is one of them."""
    top = _Parser(
        prog="vllm-build",
        description="Builds vllm's kernels and conda packages.",
        epilog=_statuses(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = top.add_subparsers(required=True, metavar="COMMAND")
    common = _common()
    for name in words[:1] if words and words[0] in COMMANDS else COMMANDS:
        command = load(name)
        sub = subparsers.add_parser(
            name, help=command.HELP, description=command.HELP, parents=[common]
        )
        command.add_arguments(sub)
        sub.set_defaults(command=command)
    return top


def _run(argv: Sequence[str], console: Console) -> int:
    """Run one command; returns its exit status.

    Raises:
        VllmBuildError: it failed.
        BrokenPipeError: the reader of the output has gone.
    """
    given: dict[str, object] = {}
    invocation = Invocation(environ.snapshot())
    try:
        arguments = parser(argv).parse_args(argv)
        console.json_mode, console.verbose = arguments.json, arguments.verbose
        given.update(vars(arguments))
        # Check all variables before any work.
        if argv[0] not in _TOLERANT:
            build_settings.require(invocation.environ)
        arguments.invocation = invocation
        return int(arguments.command.run(arguments, console))
    except BrokenPipeError:
        raise
    except Exception as error:
        failure = failures.of_exception(
            error,
            given,
            invocation.environ,
            (variable.name for variable in build_settings.variables()),
        )
        if failure is error:
            raise
        raise failure from error


def _write(document: Any, console: Console) -> int:
    """Write the document of ``--json``; returns 0, or the status of a failed write."""
    try:
        console.write(document)
    except BrokenPipeError:
        return _closed()
    except ResourceError as failure:
        _say(failure, console)
        return failure.exit_code
    return 0


def _say(why: object, console: Console) -> None:
    """Report why the command failed.

    If stderr cannot be written either, only the status and the document report it.

    Raises:
        BrokenPipeError: the reader of the messages has gone.
    """
    try:
        if console.verbose and isinstance(why, BaseException):
            say(traceback_of(why))
        console.error(str(why))
    except BrokenPipeError:
        raise
    except OSError:
        pass
    streams.discard()


def _closed() -> int:
    streams.discard()
    return 128 + signal.SIGPIPE


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit status (see :mod:`vllm_build.util.errors`)."""
    words = sys.argv[1:] if argv is None else argv
    # A command line that cannot be parsed is also reported as a document.
    before_end = words[: words.index("--")] if "--" in words else words
    console = Console(
        json_mode="--json" in before_end, verbose=bool({"-v", "--verbose"} & set(before_end))
    )
    try:
        with signals.raised():
            status, failure = _end(words, console)
            signals.settle()
    except KeyboardInterrupt as caught:
        signals.settle()
        interrupt = (
            caught
            if isinstance(caught, signals.Interrupted)
            else signals.Interrupted(signal.SIGINT)
        )
        status, failure = interrupt.status, interrupt.document()
        with contextlib.suppress(BrokenPipeError):
            _say(
                f"{interrupt}; completed results are kept, and the next run removes the rest",
                console,
            )
    except BrokenPipeError:
        return _closed()
    if not console.json_mode:
        return status
    document = console.document
    if failure is not None:
        document = failure if document is None else failure | {"result": document}
    return _write(document, console) or status


def _end(words: Sequence[str], console: Console) -> tuple[int, dict[str, Any] | None]:
    """Run one command and report its failure; returns status and failure (for ``--json``)."""
    try:
        return _run(words, console), None
    except VllmBuildError as failure:
        _say(failure, console)
        return failure.exit_code, failure.document()


if __name__ == "__main__":
    sys.exit(main())
