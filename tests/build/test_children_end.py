# SPDX-License-Identifier: Apache-2.0
"""Programs that a build starts end with it, and so do all their processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_runs import gone, marked

from vllm_build.util import locks
from vllm_build.util.errors import BusyError
from vllm_build.util.processes import children, supervisor

pytestmark = pytest.mark.usefixtures("measured")

#: Each sleep runs in a separate process group, as Ninja's compilers do, and ignores SIGTERM.
TREE = (
    "set -m; trap '' TERM; (trap '' TERM; sleep 611; :) & (trap '' TERM; sleep 612; :) & echo "
    "started; wait; sleep 613"
)


def bash(text: str, **options: object) -> subprocess.CompletedProcess[str]:
    return children.run(["bash", "-c", text], **options)  # type: ignore[arg-type]


def test_too_long(mark: str) -> None:
    """The timeout also ends the process that holds the pipe open."""
    with pytest.raises(subprocess.TimeoutExpired):
        bash("sleep 611 & sleep 612", timeout=0.5)
    assert marked(mark) == []


def test_an_exception_ends_all(mark: str) -> None:
    there = []

    def leave_early() -> None:
        with children.Child(["bash", "-c", TREE], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "started\n"
            there.extend(marked(mark))
            child.kill()
            raise KeyError

    with pytest.raises(KeyError):
        leave_early()
    assert len(there) >= 4
    assert marked(mark) == []


def test_time_to_clean_up(tmp_path: Path, mark: str) -> None:
    """A compiler gets time to remove its incomplete files when it is asked to end."""
    text = (
        f"trap 'touch {tmp_path}/cleaned; exit 1' TERM; echo started; while :; do sleep 0.05; done"
    )

    def leave_early() -> None:
        with children.Child(["bash", "-c", text], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            raise KeyError

    with pytest.raises(KeyError):
        leave_early()
    assert (tmp_path / "cleaned").exists()
    assert marked(mark) == []


def test_what_a_program_leaves_behind_ends_after_it(mark: str) -> None:
    assert bash("sleep 611 > /dev/null 2>&1 & echo done").stdout == "done\n"
    assert marked(mark) == []
    assert bash("(sleep 0.3; echo late) & echo first").stdout == "first\nlate\n", (
        "a process that ends by itself gets the time to do so"
    )


def test_a_server_that_left_the_session_goes_on(mark: str) -> None:
    """The server of a compiler cache, which other builds use, goes on without our locks."""
    assert (
        bash("setsid sleep 614 > /dev/null 2>&1 < /dev/null & sleep 0.2; echo done").stdout
        == "done\n"
    )
    assert [Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8") for pid in marked(mark)] == [
        "sleep\x00614\x00"
    ]


PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from vllm_build.util.processes import children
from vllm_build.util import locks
with locks.exclusive(Path(sys.argv[2]), "the folder"):
    children.run(["bash", "-c", sys.argv[3] + " >&2"])
"""


def parent(folder: Path, root: Path, text: str = TREE) -> subprocess.Popen[str]:
    """Start a build that holds a lock, and wait until its programs have started."""
    command = [
        sys.executable,
        "-c",
        PARENT,
        str(root / "scripts"),
        str(folder),
        f"{{ {text}; }}".replace("echo started", f"touch {folder}/s"),
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 30
    while not (folder / "s").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def test_a_build_that_is_killed(tmp_path: Path, root: Path, mark: str) -> None:
    with parent(tmp_path, root) as process:
        process.kill()
        process.wait()
        # Its programs ignore SIGTERM, so they and the lock remain for some seconds.
        assert marked(mark)
        with pytest.raises(BusyError), locks.exclusive(tmp_path, "x"):
            pass
        assert gone(mark, 30)
    # An ending process releases its memory, which contains the mark, shortly before its files.
    deadline = time.monotonic() + 10
    while True:
        try:
            with locks.exclusive(tmp_path, "x"):
                break
        except BusyError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_its_supervisor_is_killed_too(tmp_path: Path, root: Path, mark: str) -> None:
    with parent(
        tmp_path, root, "touch started; exec sleep 615".replace("started", str(tmp_path / "s"))
    ) as process:
        by_line = {
            Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8"): pid for pid in marked(mark)
        }
        (boss,) = (pid for line, pid in by_line.items() if "supervisor.py" in line)
        os.kill(boss, signal.SIGKILL)
        process.kill()
    assert gone(mark, 10)


def test_a_lock_ends_with_its_block_while_another_child_runs(tmp_path: Path) -> None:
    """A supervisor has the same open file, so closing it would not release the lock."""
    with locks.exclusive(tmp_path / "a", "a"):
        child = children.Child(["sleep", "616"])
    with child, locks.exclusive(tmp_path / "a", "a"):
        child.kill()
    assert locks.held() == ()


def test_processes_of_a_session(mark: str) -> None:
    assert mark
    with children.Child(["bash", "-c", "sleep 617 & exec -a 'odd) S 1 (name' sleep 618"]) as child:
        deadline = time.monotonic() + 20
        while len(supervisor.members(child.pid)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert child.pid not in supervisor.members(child.pid)
        child.kill()
    assert supervisor.members(child.pid) == []
