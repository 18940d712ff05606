# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from vllm_build.errors import BusyError
from vllm_build.locks import exclusive, shared, turn, unused

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys, pathlib
from vllm_build.locks import exclusive, shared, turn, unused
with exclusive(pathlib.Path(sys.argv[1]), "x"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_process_is_told_who_and_what(tmp_path: Path, root: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(root / "scripts")}
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match="the output folder") as caught, exclusive(tmp_path, "the output folder"):
            pass
        assert str(tmp_path) in caught.value.message
        holder.kill()
    with exclusive(tmp_path, "the output folder"):
        pass


def test_readers_share_and_keep_the_cleaner_out(tmp_path: Path) -> None:
    lock = tmp_path / "channel" / ".lock"
    with shared(lock, "it", patience=0), shared(lock, "it", patience=0), pytest.raises(BusyError), unused(lock, "it"):
        pass
    with unused(lock, "it"), pytest.raises(BusyError, match="another process holds it"), shared(lock, "it", patience=0.2):
        pass
    with unused(lock, "it"):
        pass


def test_a_reader_waits_for_the_cleaner_and_says_so(tmp_path: Path) -> None:
    lock, said, cleaning = tmp_path / ".lock", [], threading.Event()

    def clean() -> None:
        with unused(lock, "it"):
            cleaning.set()
            time.sleep(0.5)

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    cleaning.wait()
    with shared(lock, "it", patience=60, say=said.append):
        assert said == ["waiting for another process that holds it"]
    cleaner.join()


def test_a_turn_ends_with_the_process_that_has_it(tmp_path: Path, root: Path) -> None:
    script = (
        "import sys, pathlib\nfrom vllm_build.locks import turn\n"
        "with turn(pathlib.Path(sys.argv[1]), 'x'):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "x.lock")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(root / "scripts")}
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        said: list[str] = []
        threading.Timer(0.5, holder.kill).start()
        with turn(tmp_path / "x.lock", "the thing", say=said.append):
            assert said == ["waiting for another process that makes the thing"]
    with turn(tmp_path / "x.lock", "the thing", say=said.append):
        assert len(said) == 1
