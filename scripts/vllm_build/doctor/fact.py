# SPDX-License-Identifier: Apache-2.0
"""One fact that the doctor reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vllm_build.util.errors import ConfigurationError, VllmBuildError

#: Two settings exclude each other, or a value is invalid.
CONTRADICTION = "contradiction"
#: Something that a build needs is absent or does not work.
MISSING = "missing"


@dataclass(frozen=True)
class Fact:
    """One fact that the doctor reports.

    Attributes:
        what: the name of the thing that was examined.
        found: its state, in words.
        remedy: what to do; None without a problem.
        problem: CONTRADICTION or MISSING; None without a problem.
    """

    what: str
    found: str
    remedy: str | None = None
    problem: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fact for ``--json``."""
        return asdict(self)


def contradiction(what: str, found: str, remedy: str) -> Fact:
    """A fact about two things that exclude each other."""
    return Fact(what, found, remedy, CONTRADICTION)


def missing(what: str, found: str, remedy: str) -> Fact:
    """A fact about something that a build needs and that is missing."""
    return Fact(what, found, remedy, MISSING)


def of_error(what: str, error: VllmBuildError) -> Fact:
    """The fact that corresponds to an error of a build."""
    # The expectation is more specific than the usual remedy.
    remedy = (
        f"expected: {error.expected}"
        if error.expected and error.remedy == error.usual_remedy
        else error.remedy
    )
    return Fact(
        what,
        error.message,
        remedy,
        CONTRADICTION if isinstance(error, ConfigurationError) else MISSING,
    )
