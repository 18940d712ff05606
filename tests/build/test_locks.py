# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from vllm_build.util import locks
from vllm_build.util.errors import BusyError
from vllm_build.util.locks import exclusive, shared, transient, turn, unused

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys, pathlib
from vllm_build.util.locks import exclusive, shared, turn, unused
with exclusive(pathlib.Path(sys.argv[1]), "x"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_process_is_told_who_and_what(tmp_path: Path, root: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(root / "scripts")},
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(BusyError, match="the output folder") as caught,
            exclusive(tmp_path, "the output folder"),
        ):
            pass
        assert str(tmp_path) in caught.value.message
        holder.kill()
    with exclusive(tmp_path, "the output folder"):
        pass


def test_readers_share_and_keep_the_cleaner_out(tmp_path: Path) -> None:
    lock = tmp_path / "channel" / ".lock"
    with (
        shared(lock, "it", patience=0),
        shared(lock, "it", patience=0),
        pytest.raises(BusyError),
        unused(lock, "it"),
    ):
        pass
    with (
        unused(lock, "it"),
        pytest.raises(BusyError, match="another process holds it"),
        shared(lock, "it", patience=0.2),
    ):
        pass
    with unused(lock, "it"):
        pass


def test_a_reader_waits_for_the_cleaner_and_says_so(tmp_path: Path) -> None:
    lock, cleaning = tmp_path / ".lock", threading.Event()
    said: list[str] = []

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
        "import sys, pathlib\nfrom vllm_build.util.locks import turn\n"
        "with turn(pathlib.Path(sys.argv[1]), 'x'):\n    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "x.lock")]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(root / "scripts")},
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        said: list[str] = []
        threading.Timer(0.5, holder.kill).start()
        with turn(tmp_path / "x.lock", "the thing", say=said.append):
            assert said == ["waiting for another process that makes the thing"]
    with turn(tmp_path / "x.lock", "the thing", say=said.append):
        assert len(said) == 1


def test_a_transient_lock_leaves_no_file(tmp_path: Path) -> None:
    lock = tmp_path / "folder" / ".lock"
    with transient(lock, "it"):
        assert lock.is_file()
        with pytest.raises(BusyError, match="another process uses it"), transient(lock, "it"):
            pass
        assert lock.is_file(), "a refused process removes nothing"
    assert not lock.exists()
    with pytest.raises(KeyError), transient(lock, "it"):
        raise KeyError
    assert not lock.exists()
    lock.write_text("somebody's", encoding="utf-8")
    with transient(lock, "it"):
        pass
    assert lock.read_text(encoding="utf-8") == "somebody's"


def test_a_transient_lock_that_was_opened_before_its_removal_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, real = tmp_path / ".lock", locks._try
    moments: list[int] = []

    def removed_before(handle: int, operation: int) -> bool:
        # Between opening and locking the file, its holder ends and removes it, and another
        # process creates it again.
        if not moments:
            lock.unlink()
            lock.touch()
        moments.append(handle)
        return real(handle, operation)

    monkeypatch.setattr(locks, "_try", removed_before)
    with transient(lock, "it"):
        assert len(moments) == 2
        monkeypatch.undo()
        with pytest.raises(BusyError), unused(lock, "it"):
            pass


def test_a_transient_lock_has_one_holder(tmp_path: Path) -> None:
    lock, holders, most, errors = tmp_path / ".lock", [], [], []

    def work() -> None:
        try:
            for _ in range(100):
                try:
                    with transient(lock, "it"):
                        holders.append(1)
                        most.append(len(holders))
                        time.sleep(0)
                        holders.pop()
                except BusyError:
                    continue
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert set(most) == {1}
    assert not lock.exists()
