# SPDX-License-Identifier: Apache-2.0
"""Makes the small model that tests of the server use, in an installed environment."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import engine_server

from vllm_build.util import paths

if TYPE_CHECKING:
    from pathlib import Path

_MAKER = paths.source_root() / "scripts" / "engine_demo" / "small_model.py"


def make(prefix: Path, folder: Path, *options: str) -> Path:
    """Write a Llama with a tokenizer into ``folder``, with the Python of ``prefix``.

    Args:
        prefix: the environment.
        folder: is created.
        options: those of ``scripts/engine_demo/small_model.py``.

    Raises:
        AssertionError: the program failed; the message is its output.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [str(prefix / "bin" / "python"), "-P", str(_MAKER), str(folder), *options],
        env=engine_server.environ(prefix, folder.parent),
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
