# SPDX-License-Identifier: Apache-2.0
"""Whether a process has ended, which takes a moment after the signal that ends it."""

from __future__ import annotations

import time
from pathlib import Path


def ends(number: int, seconds: float) -> bool:
    """Whether a process ends in time; it may stay as a zombie where nothing waits for orphans."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        try:
            state = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state.split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False
