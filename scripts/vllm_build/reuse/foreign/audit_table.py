# SPDX-License-Identifier: Apache-2.0
"""The table that an audit of an official wheel fills: one row for each check."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Verdicts. LACKING rows are accepted on request. UNSEEN rows are those that this machine cannot
#: decide.
GOOD, BAD, LACKING, UNSEEN = "good", "BAD", "lacking", "not seen"


@dataclass(frozen=True)
class Row:
    """One check.

    Attributes:
        check: its name.
        found: the finding.
        needed: the requirement.
        verdict: GOOD, BAD, LACKING or UNSEEN.
    """

    check: str
    found: str
    needed: str
    verdict: str


@dataclass
class Audit:
    """The result of an audit.

    Attributes:
        rows: the table.
        unusable: name -> reason, for each op, or Python module with functions, that our Python
            calls and that cannot be called.
        torch: the torch release that the libraries need, exactly; None if they work with any
            release that has their symbols.
    """

    rows: list[Row] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)
    torch: str | None = None

    def add(self, check: str, found: str, needed: str, *, good: bool | None) -> None:
        """Add a row; ``good`` is None if this machine cannot decide."""
        self.rows.append(
            Row(check, found, needed, UNSEEN if good is None else GOOD if good else BAD)
        )

    def add_lacking(self, check: str, found: str, needed: str) -> None:
        """Add a row for something that the wheel lacks and can be used without."""
        self.rows.append(Row(check, found, needed, LACKING))

    @property
    def failed(self) -> list[Row]:
        """The rows that rule the wheel out."""
        return [row for row in self.rows if row.verdict == BAD]

    @property
    def unseen(self) -> list[Row]:
        """The rows that this machine cannot decide."""
        return [row for row in self.rows if row.verdict == UNSEEN]

    def text(self) -> str:
        """The table for a log."""
        return "\n".join(
            f"  {row.verdict:<8} {row.check}: {row.found}; needed: {row.needed}"
            for row in self.rows
        )


def join_names(names: Iterable[str], most: int = 6) -> str:
    """A sorted list of names for a row; names beyond the first ``most`` are only counted."""
    listed = sorted(names)
    return ", ".join(listed[:most]) + (
        f" and {len(listed) - most} more" if len(listed) > most else ""
    )
