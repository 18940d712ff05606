# SPDX-License-Identifier: Apache-2.0
"""Reads what pip prints when it fails."""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

from vllm_build.util.redaction import excerpt

if TYPE_CHECKING:
    import subprocess

_UNMATCHED = re.compile(r"^ERROR: No matching distribution found for (\S+)\s*$", re.MULTILINE)
_VERSIONS = re.compile(r"\(from versions: ([^)]*)\)")


def _printed(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


def reason(done: subprocess.CompletedProcess[str]) -> str:
    """The last error message of pip, for display only."""
    errors = [
        line.removeprefix("ERROR: ").strip()
        for line in _printed(done).splitlines()
        if line.startswith("ERROR")
    ]
    return (
        errors[-1]
        if errors
        else excerpt(_printed(done).strip(), 300, end=True) or f"exit status {done.returncode}"
    )


def is_disk_full(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether pip found no space on the disk."""
    return any(os.strerror(number) in _printed(done) for number in (errno.ENOSPC, errno.EDQUOT))


def unmatched(done: subprocess.CompletedProcess[str]) -> str:
    """The first requirement for which pip found no file, as pip spells it; empty without one."""
    found = _UNMATCHED.search(_printed(done))
    return found[1] if found else ""


def other_versions(done: subprocess.CompletedProcess[str]) -> tuple[str, ...]:
    """The versions that pip found for :func:`unmatched`, oldest first."""
    found = _VERSIONS.search(_printed(done))
    listed = found[1].split(", ") if found else []
    return tuple(version for version in listed if version != "none")
