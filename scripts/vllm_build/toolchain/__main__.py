# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm_build.toolchain``: the engine without the rest of the command line, for work on recipes."""

from __future__ import annotations

import argparse
import sys

from vllm_build.console import Console
from vllm_build.errors import EXIT_INTERRUPTED, VllmBuildError
from vllm_build.paths import source_root
from vllm_build.toolchain import channel
from vllm_build.toolchain.update import update


def main(arguments: list[str] | None = None) -> int:
    """Run ``update [--only ID]`` or ``build [ID ...]``; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m vllm_build.toolchain", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    updating = commands.add_parser("update", help="resolve sources.toml into lock.toml")
    updating.add_argument("--only", action="append", metavar="ID")
    building = commands.add_parser("build", help="bring the channel up to date")
    building.add_argument("ids", nargs="*", metavar="ID")
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args(arguments)
    console = Console(verbose=options.verbose)
    try:
        if options.command == "update":
            for file in update(source_root(), console, options.only):
                console.output(f"{file.build}: {file.label} ({file.filename})")
        else:
            report = channel.ensure(source_root(), console, options.ids or None)
            for outcome in report.outcomes:
                console.output(f"{outcome.id}: {outcome.action}, {outcome.seconds:.1f} s, {outcome.size / 1e6:.1f} MB")
            console.output(report.url)
    except VllmBuildError as error:
        if options.verbose:
            raise
        console.error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        console.error("interrupted; what was finished stays")
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
