# SPDX-License-Identifier: Apache-2.0
"""Installs into a prefix, and can kill itself at a rename.

Usage: install_child.py PREFIX SPEC CHANNEL [before|after NUMBER]

With the last two arguments, the process sends itself SIGKILL before or after rename NUMBER.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from vllm_build.conda.environments import conda_environment

_REAL = Path.rename


def _killing(when: str, number: int) -> None:
    seen = 0

    def rename(self: Path, target: Path) -> Path:
        nonlocal seen
        seen += 1
        if (when, seen) == ("before", number):
            os.kill(os.getpid(), signal.SIGKILL)
        done = _REAL(self, target)
        if (when, seen) == ("after", number):
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    Path.rename = rename  # type: ignore[assignment,method-assign]


if __name__ == "__main__":
    prefix, spec, channel, *kill = sys.argv[1:]
    if kill:
        _killing(kill[0], int(kill[1]))
    conda_environment.create(Path(prefix), [spec], [channel])
