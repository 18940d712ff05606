# SPDX-License-Identifier: Apache-2.0
"""Errors of an installation that exhausted a resource of the machine."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from vllm_build.util.errors import ResourceError

if TYPE_CHECKING:
    from pathlib import Path


def exhausted(what: str, reason: str) -> ResourceError:
    """The error for ``what``, which failed because a resource was exhausted."""
    return ResourceError(
        f"{what} failed: {reason}",
        expected="disk, memory and file handles for an installation",
        remedy="free some, or raise the limits of this process (ulimit -a)",
    )


def cut_short(folder: Path) -> str | None:
    """Describe a file in ``folder`` that has the maximum size of a file; None if there is none.

    rattler does not report a record that it could write only in part.
    """
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    found = next(
        (
            path
            for path in folder.rglob("*")
            if path.is_file() and not path.is_symlink() and path.stat().st_size >= limit
        ),
        None,
    )
    return f"{found} has the {limit} bytes that a file may have" if found else None
