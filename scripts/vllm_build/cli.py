# SPDX-License-Identifier: Apache-2.0
"""The ``vllm-build`` command."""

from __future__ import annotations

import argparse
import errno
import sys
import traceback

from vllm_build import settings as variables
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
from vllm_build.errors import EXIT_INTERRUPTED, ResourceError, VllmBuildError

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


def _common() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--json", action="store_true", help="write the result to stdout as one JSON document")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the tools' output and tracebacks of errors")
    return parser


def parser() -> argparse.ArgumentParser:
    """The command line, one subcommand per module of :mod:`vllm_build.commands`."""
    top = argparse.ArgumentParser(prog="vllm-build", description="Builds vllm's kernels and conda packages.")
    subparsers = top.add_subparsers(required=True, metavar="COMMAND")
    common = _common()
    for command in COMMANDS:
        sub = subparsers.add_parser(command.NAME, help=command.HELP, description=command.HELP, parents=[common])
        command.add_arguments(sub)
        sub.set_defaults(command=command)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    arguments = parser().parse_args(argv)
    console = Console(json_mode=arguments.json, verbose=arguments.verbose)
    try:
        # Every value before any work; these two show what is malformed themselves.
        if arguments.command not in (settings, doctor):
            variables.require()
        return int(arguments.command.run(arguments, console))
    except KeyboardInterrupt:
        console.error("interrupted; what was complete is kept, the rest is removed at the next start")
        return EXIT_INTERRUPTED
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENOMEM):
            raise
        failure: VllmBuildError = ResourceError(
            f"{error}", expected="room to write", remedy="free some space; VLLM_BUILD_CACHE chooses another place for the cache"
        )
        failure.__cause__ = error
    except VllmBuildError as error:
        failure = error
    if arguments.verbose:
        traceback.print_exception(failure)
    console.error(str(failure))
    if arguments.json:
        console.json(
            {
                "error": type(failure).__name__,
                "exit_code": failure.exit_code,
                "message": failure.message,
                "expected": failure.expected,
                "remedy": failure.remedy,
            }
        )
    return failure.exit_code


if __name__ == "__main__":
    sys.exit(main())
