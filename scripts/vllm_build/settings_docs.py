# SPDX-License-Identifier: Apache-2.0
"""``docs/settings.md``, made from the table in :mod:`vllm_build.settings`, so that no variable is undocumented or documented twice."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from vllm_build import settings
from vllm_build.errors import IntegrityError
from vllm_build.files import holds, write_if_changed

if TYPE_CHECKING:
    from pathlib import Path

#: Below the source root.
PAGE = "docs/settings.md"

_HEAD = """\
<!-- SPDX-License-Identifier: Apache-2.0 -->
<!-- Written by `vllm-build settings --write` from scripts/vllm_build/settings.py; a test fails when the two differ. -->
# Environment variables

A malformed value is an error that names the variable, the value and what is accepted; an empty variable counts as unset.
`vllm-build settings` shows what is set now.

The following are read by every build: `pip install`, `python -m build`, the recipe.
"""
_TAIL = """
## The driver

`vllm-build package` and its relatives read these as well.

| variable | accepts | unset means | effect |
|---|---|---|---|
| `VLLM_BUILD_CACHE` | the path of a folder | `$XDG_CACHE_HOME/vllm-build`, else `~/.cache/vllm-build` | The cache of toolchain channel, \
compiler cache and extracted packages. |
| `CHANNEL` | `local` or `conda-forge` | `local` where apt exists | Where compilers and dependencies come from. |
| `CCACHE_DIR` | the path of a folder | a folder of the cache | The compiler cache of package builds. |
| `SOURCE_DATE_EPOCH` | seconds since 1970, at least 315532800 | the time of the build | The time of the files inside of \
wheels and sdists, by pip's build tools. Conda packages carry a fixed time and ignore it. |
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for section, variables in groupby(settings.variables(), lambda variable: variable.section):
        parts.append(f"\n## {section}\n\n| variable | accepts | unset means | effect |\n|---|---|---|---|\n")
        parts += [f"| `{v.name}` | {v.kind.accepts} | {v.default} | {v.doc} |\n" for v in variables]
    return "".join((*parts, _TAIL))


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
            f"{path} is out of step with the table of variables", expected="the page made from it", remedy="vllm-build settings --write"
        )
