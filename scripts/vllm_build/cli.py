# SPDX-License-Identifier: Apache-2.0
"""The ``vllm-build`` command."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from pathlib import Path

from vllm_build import commands
from vllm_build.console import Console
from vllm_build.errors import EXIT_INTERRUPTED, ResourceError, VllmBuildError


def _common() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--json", action="store_true", help="write the result to stdout as one JSON document")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the tools' output and tracebacks of errors")
    return parser


def _channel(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get("CHANNEL")
    parser.add_argument(
        "--channel",
        default=default,
        help="local (made from PyPI and Debian packages) or conda-forge; default: $CHANNEL, else local where apt exists",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("output"), help="the folder, itself a conda channel, that receives the packages"
    )


def parser() -> argparse.ArgumentParser:
    """The command line, one subcommand per job."""
    top = argparse.ArgumentParser(prog="vllm-build", description="Builds vllm's kernels and conda packages.")
    sub = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = [_common()]

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return sub.add_parser(name, help=text, description=text, parents=common)

    package = add("package", "Build the conda packages of a variant, install them in a clean prefix and run them.")
    package.add_argument("variant", help="a name of variants/, or the path of a variant file")
    _channel(package)

    toolchain = add("toolchain", "Build the local toolchain channel; only what changed.")
    toolchain.add_argument("ids", nargs="*", help="builds to make, with what they need; default: all")
    toolchain.add_argument("--update", action="store_true", help="lock the versions that the mirrors have now, instead of building")

    render = add("render", "Show the packages that a variant gives, without building.")
    render.add_argument("variant", nargs="*", help="variants; default: all")
    _channel(render)

    test = add("test-package", "Check built packages: every interpreter, ABI audits, glibc floor, the tests of kernels and package.")
    test.add_argument("variant")
    _channel(test)

    install = add("install", "Install built packages into a prefix.")
    install.add_argument("prefix", type=Path)
    install.add_argument("specs", nargs="*", default=["vllm"], help="what to install; default: vllm")
    _channel(install)

    stamp = add("stamp", "Write the version and digests of the tree into recipe/variants.yaml.")
    stamp.add_argument("--check", action="store_true", help="only compare")

    plan = add("plan", "Show which kernels are built, for what, and which are not and why.")
    plan.add_argument("--device", help="default: VLLM_TARGET_DEVICE, else the one that is found")

    add("doctor", "Show what was found on this machine, and what contradicts what.")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    arguments = parser().parse_args(argv)
    console = Console(json_mode=arguments.json, verbose=arguments.verbose)
    run = getattr(commands, arguments.command.replace("-", "_"))
    try:
        return int(run(arguments, console))
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
