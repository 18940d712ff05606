# SPDX-License-Identifier: Apache-2.0
"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vllm_build.util.errors import ConfigurationError, VllmBuildError

#: Two things that cannot both be meant, or a value that means nothing.
CONTRADICTION = "contradiction"
#: Something a build needs is absent or does not work.
MISSING = "missing"


@dataclass(frozen=True)
class Fact:
    """One thing that was looked at.

    Attributes:
        what: its name.
        found: what it is, in words.
        remedy: what to do; None when all is well.
        problem: CONTRADICTION or MISSING; None when all is well.
    """

    what: str
    found: str
    remedy: str | None = None
    problem: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fact for ``--json``."""
        return asdict(self)


def contradiction(what: str, found: str, remedy: str) -> Fact:
    """Two things that exclude one another."""
    return Fact(what, found, remedy, CONTRADICTION)


def missing(what: str, found: str, remedy: str) -> Fact:
    """Something that a build needs and that is not there."""
    return Fact(what, found, remedy, MISSING)


def of_error(what: str, error: VllmBuildError) -> Fact:
    """The fact behind an error that a build would end with."""
    # What was expected says more than what is usual.
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
