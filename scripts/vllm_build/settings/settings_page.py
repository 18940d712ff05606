# SPDX-License-Identifier: Apache-2.0
"""Writes ``docs/settings.md`` from the table in :mod:`vllm_build.settings.build_settings`, so the page has every variable once."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from vllm_build.settings import build_settings, other_variables
from vllm_build.util.errors import IntegrityError
from vllm_build.util.files import holds, write_if_changed

if TYPE_CHECKING:
    from pathlib import Path

#: Below the source root.
PAGE = "docs/settings.md"

_HEAD = """\
<!-- SPDX-License-Identifier: Apache-2.0 -->
<!-- Written by `vllm-build settings --write` from scripts/vllm_build/settings/build_settings.py; a test fails when the two differ. -->
# Environment variables

A malformed value is an error that names the variable, the value and what is accepted; an empty variable counts as unset.
`vllm-build settings` shows what is set now.

The following are read by every build: `pip install`, `python -m build`, the recipe.
"""
_TAIL = """\

The driver alone reads the variables of this last section.

## Variables of other tools

These reach the tool that reads them:

| variable | read by |
|---|---|
{honoured}
These are set for other builds and do nothing here; a build that finds one set names it in a warning:

| variable | instead |
|---|---|
{ignored}"""


def _other_tools() -> str:
    honoured = "".join(
        f"| {names} | {reader} |\n" for names, reader in other_variables.HONOURED.items()
    )
    rows = (
        f"| {', '.join(f'`{name}`' for name in row.names)} | {row.instead} |\n"
        for row in other_variables.IGNORED
    )
    return _TAIL.format(honoured=honoured, ignored="".join(rows))


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for section, variables in groupby(
        build_settings.variables(), lambda variable: variable.section
    ):
        parts.append(
            f"\n## {section}\n\n| variable | accepts | unset means | effect |\n|---|---|---|---|\n"
        )
        parts += [f"| `{v.name}` | {v.kind.accepts} | {v.default} | {v.doc} |\n" for v in variables]
    return "".join((*parts, _other_tools()))


def write(root: Path) -> bool:
    """Write the page below ``root``; returns whether anything changed."""
    return write_if_changed(root / PAGE, page())


def check(root: Path) -> None:
    """Compare the page below ``root`` with the table.

    Raises:
        IntegrityError: it says something else.
    """
    path = root / PAGE
    if not holds(path, page()):
        raise IntegrityError(
            f"{path} is out of step with the table of variables",
            expected="the page made from it",
            remedy="vllm-build settings --write",
        )
