# SPDX-License-Identifier: Apache-2.0
"""Writes ``docs/settings.md`` from the table in :mod:`vllm_build.settings.build_settings`."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from vllm_build.settings import build_settings, other_variables
from vllm_build.util.errors import IntegrityError
from vllm_build.util.files import holds, write_if_changed

if TYPE_CHECKING:
    from pathlib import Path

#: Relative to the source root.
PAGE = "docs/settings.md"

_HEAD = """\
<!-- SPDX-License-Identifier: Apache-2.0 -->
<!-- `vllm-build settings --write` writes this page from scripts/vllm_build/settings. -->
<!-- A test fails if the two differ. -->
# Environment variables

A malformed value is an error that names the variable, the value and the accepted values. An empty
variable counts as unset. `vllm-build settings` shows the values of your environment.

Every build reads the following variables: `pip install`, `python -m build`, the recipe.
"""
_TAIL = """\

Only the driver reads the variables of this last section.

## Variables of other tools

These variables are passed to the tool that reads them:

| variable | read by |
|---|---|
{honoured}
These variables belong to other builds and have no effect here. A build warns if one of them is set:

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
    """The content of the page."""
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
        IntegrityError: they differ.
    """
    path = root / PAGE
    if not holds(path, page()):
        raise IntegrityError(
            f"{path} is out of step with the table of variables",
            expected="the page that is generated from the table",
            remedy="vllm-build settings --write",
        )
