# SPDX-License-Identifier: Apache-2.0
"""``vllm-build reuse``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from vllm_build.reuse import preparation
from vllm_build.reuse.net.reuse_context import Context, Meter
from vllm_build.util import paths, text_table

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console

HELP = (
    "Show which outputs a build would reuse, from where, and which it would compile; writes only "
    "to the cache. With VLLM_PRECOMPILED_FOREIGN it downloads the libraries and loads them for "
    "the audit."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--fetch",
        action="store_true",
        help="also download and check their files, so that a build works without network",
    )


def run(arguments: Namespace, console: Console) -> int:
    """Show the decision for each output, and fetch the files with ``--fetch``."""
    settings = dataclasses.replace(arguments.invocation.settings, use_precompiled=True)
    with console.transfer("kernels") as counter:
        meter = Meter(counter.advance)
        context = Context.of_settings(settings, meter)
        with preparation.prepare(paths.source_root(), settings, context) as reuse:
            files = reuse.fetch() if arguments.fetch else {}
            report = reuse.report
            rows = [
                {
                    "output": d.wanted.output,
                    "digest": d.wanted.digest,
                    "action": d.action,
                    "where": d.where,
                    "why": d.why,
                }
                for d in reuse.decisions
            ]
    if console.json_mode:
        console.json(
            {
                "outputs": rows,
                "files": {name: str(path) for name, path in files.items()},
                "bytes": meter.size,
            }
        )
    console.table(
        "reuse",
        ["output", "action", "where", "why"],
        [[r["output"], r["action"], r["where"], r["why"]] for r in rows],
    )
    if report:
        for line in text_table.wrap(report.rstrip(), console.width):
            console.info(line)
    if meter.size:
        console.info(meter.summary())
    return 0
