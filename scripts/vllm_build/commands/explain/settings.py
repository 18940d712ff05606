# SPDX-License-Identifier: Apache-2.0
"""``vllm-build settings``."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from vllm_build.settings import build_settings, settings_page
from vllm_build.util import paths
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Mapping

    from vllm_build.settings.variable import Variable
    from vllm_build.util.console import Console

HELP = "Show the build's environment variables: values, meanings and errors."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--write",
        action="store_true",
        help=f"write {settings_page.PAGE} from the table of variables",
    )
    kind.add_argument(
        "--check",
        action="store_true",
        help=f"compare {settings_page.PAGE} with the table of variables",
    )


def _row(variable: Variable, environ: Mapping[str, str]) -> dict[str, Any]:
    text = environ.get(variable.name, "")
    row: dict[str, Any] = {
        "name": variable.name,
        "set": bool(text.strip()),
        "value": text if text.strip() else None,
        "accepts": variable.kind.accepts,
        "default": variable.default,
        "doc": variable.doc,
        "error": None,
    }
    try:
        variable.read(environ)
    except ConfigurationError as error:
        row["error"] = str(error)
    return row


def _show(rows: list[dict[str, Any]], console: Console) -> None:
    """Show one entry per variable, in the sections of the documentation, and a summary."""
    shown = zip(build_settings.variables(), rows, strict=True)
    for section, group in groupby(shown, lambda pair: pair[0].section):
        items = []
        for _, row in group:
            value = ("set to", row["value"]) if row["set"] else ("unset means", row["default"])
            items.append(
                (row["name"], [value, ("effect", row["doc"]), ("error", row["error"] or "")])
            )
        console.entries(section, items)
    malformed = sum(bool(row["error"]) for row in rows)
    summary = (
        f"{sum(row['set'] for row in rows)} of {len(rows)} variables are set, {malformed} of "
        "them malformed"
    )
    console.text(summary, [])


def run(arguments: Namespace, console: Console) -> int:
    """Show the variables; the exit status is that of a configuration error if one is malformed."""
    root = paths.source_root()
    if arguments.check:
        settings_page.check(root)
        console.info(f"{settings_page.PAGE} matches the table of variables")
        if console.json_mode:
            console.json({"page": settings_page.PAGE, "written": False})
        return 0
    if arguments.write:
        written = settings_page.write(root)
        console.info(f"{settings_page.PAGE} {'is written' if written else 'was up to date'}")
        if console.json_mode:
            console.json({"page": settings_page.PAGE, "written": written})
        return 0
    rows = [_row(variable, arguments.invocation.environ) for variable in build_settings.variables()]
    if console.json_mode:
        console.json(rows)
    _show(rows, console)
    return ConfigurationError.exit_code if any(row["error"] for row in rows) else 0
