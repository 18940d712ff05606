# SPDX-License-Identifier: Apache-2.0
"""``vllm-build package``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.commands.package_options import add_channel, request
from vllm_build.conda import engine_demo, package_job
from vllm_build.settings import other_variables
from vllm_build.util import path_rules, paths
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console

#: Seconds of processor time from which a unit is listed. The JSON document has all units.
_SLOW = 20
_LAST_PORT = 65535
HELP = "Build the conda packages of a variant, install them into a clean prefix and run them."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("variant", help="a name of variants/, or the path of a variant file")
    add_channel(parser)
    parser.add_argument(
        "--reuse",
        metavar="CHANNELS",
        help="conda channels (paths or URLs) whose packages are used instead of a build if they "
        "are exactly those of this tree; default: $REUSE",
    )
    end = parser.add_mutually_exclusive_group()
    end.add_argument(
        "--build-only",
        action="store_true",
        help="build the packages and run their own tests, and neither install nor run them here",
    )
    end.add_argument(
        "--serve",
        type=_port,
        metavar="PORT",
        help="instead of the demonstration at the end, serve its model on this port of 127.0.0.1 "
        "(0: a free one) until Ctrl-C",
    )


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > _LAST_PORT:
        raise ConfigurationError(
            f"--serve={text!r} is not a port",
            expected=f"a number from 0 to {_LAST_PORT}",
            remedy="correct --serve, or PORT of `make serve-demo`",
        )
    return int(text)


def run(arguments: Namespace, console: Console) -> int:
    """Build, install and run the packages of one variant.

    Raises:
        ConfigurationError: ``--serve`` with ``--json``.
    """
    serve: int | None = arguments.serve
    if serve is not None and arguments.json:
        raise ConfigurationError(
            "--serve and --json exclude each other",
            expected="one of them, because a server has no result",
        )
    path_rules.require_packaging(arguments.output, paths.cache_root())
    environ = arguments.invocation.environ
    for sentence in (
        *other_variables.ignored(environ),
        *other_variables.misspelt(environ),
        *other_variables.not_for_packages(environ),
    ):
        console.warn(sentence)
    wanted = request(arguments, arguments.variant, console)
    result = package_job.package(
        wanted, console, install=not arguments.build_only, demonstrate=serve is None
    )
    console.table(
        "stages",
        ["stage", "seconds"],
        [[title, f"{seconds:.1f}"] for title, seconds in result["seconds"].items()],
    )
    units = [
        [
            u["unit"],
            f"{u['cpu_seconds']:.0f}",
            f"{u['peak_bytes'] / 2**30:.1f}",
            f"{u['object_bytes'] / 2**20:.1f}",
        ]
        for u in result["units"]
        if u["cpu_seconds"] >= _SLOW
    ]
    if units:
        console.table(
            f"units that took {_SLOW} s or more",
            ["unit", "processor seconds", "GiB", "MiB of object file"],
            units,
        )
    console.table(
        "packages", ["file", "sha256"], [[p["path"], p["sha256"]] for p in result["packages"]]
    )
    if console.json_mode:
        console.json(result)
    else:
        console.info("install with:")
        console.output(result["install"])
    if serve is not None:
        engine_demo.serve(wanted, serve, console)
    elif not console.json_mode and not arguments.build_only:
        console.info("serve a model (a folder, or a name on the Hugging Face Hub) with:")
        console.output(result["serve"])
    return 0
