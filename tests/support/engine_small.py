# SPDX-License-Identifier: Apache-2.0
"""A small model with a tokenizer and a chat template, for tests of the server."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from engine_server import environ
from package_runs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

#: Tokens of the longest sequence, and sequences that are computed at once, of the tests' servers.
CONTEXT, SEQUENCES = 512, 16
MAKER = ROOT / "scripts" / "engine_demo" / "small_model.py"


def make(prefix: Path, folder: Path, *options: str) -> Path:
    """Write a model with random weights into ``folder``, with the environment's transformers."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    subprocess.run(
        [prefix / "bin" / "python", MAKER, folder, *options],
        cwd=folder.parent,
        env=environ(prefix, home),
        check=True,
    )
    return folder
