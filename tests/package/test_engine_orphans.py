# SPDX-License-Identifier: Apache-2.0
"""The engine's process ends when its parent is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import process_ends
import pytest

if TYPE_CHECKING:
    from pathlib import Path

#: Starts a process with a name, prints its number, and waits.
PARENT = """
import multiprocessing, sys, time

class Argument:
    # Watches while it is unpickled, as the engine does.

    def __init__(self, deaf):
        self.deaf = deaf

    def __reduce__(self):
        return watching, (self.deaf,)

def watching(deaf):
    import signal
    from vllm._kernels.engine import orphans
    orphans.PATIENCE = 0.2
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    orphans.watch()
    orphans.watch()
    return Argument(deaf)

def child(argument):
    print("ready", flush=True)
    time.sleep(120)

if __name__ == "__main__":
    name, deaf = sys.argv[1:]
    process = multiprocessing.get_context("spawn").Process(
        target=child, args=(Argument(deaf == "deaf"),), name=name
    )
    process.start()
    print(process.pid, flush=True)
    time.sleep(120)
"""


@pytest.mark.parametrize(
    ("name", "deaf", "ends"),
    [
        ("EngineCore", "hearing", True),
        ("EngineCore_DP0", "deaf", True),
        ("SpawnProcess-1", "hearing", False),
    ],
)
def test_the_engine_ends_with_its_parent(
    tmp_path: Path, name: str, deaf: str, *, ends: bool
) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, str(script), name, deaf], stdout=subprocess.PIPE, text=True, env=env
    ) as parent:
        assert parent.stdout is not None
        number = int(parent.stdout.readline())
        try:
            assert parent.stdout.readline() == "ready\n"
            parent.kill()
            assert process_ends.ends(number, 60 if ends else 1) is ends
        finally:
            parent.kill()
            if not process_ends.ends(number, 0.1):
                os.kill(number, signal.SIGKILL)
