# SPDX-License-Identifier: Apache-2.0
"""Programs that a build starts: they behave as if it had started them itself, and nothing of them outlives it."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_runs import HEARING, MARK, gone, marked

from vllm_build.util import locks
from vllm_build.util.errors import BusyError
from vllm_build.util.processes import children, signals, supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

#: In a process group of their own each, as Ninja's compilers are, and deaf to SIGTERM.
TREE = (
    "set -m; trap '' TERM; (trap '' TERM; sleep 611; :) & (trap '' TERM; sleep 612; :) & echo "
    "started; wait; sleep 613"
)


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With site-packages and as a module, as a run that measures coverage needs it."""
    if any(name.startswith("COVERAGE_PROCESS") for name in os.environ):
        monkeypatch.setattr(
            children,
            "_SUPERVISOR",
            [sys.executable, "-I", "-B", "-m", "vllm_build.util.processes.supervisor"],
        )


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Marks what the test starts; whatever is left of it is killed."""
    value = uuid.uuid4().hex
    monkeypatch.setenv(MARK, value)
    yield value
    for pid in marked(value):
        os.kill(pid, signal.SIGKILL)


def bash(text: str, **options: object) -> subprocess.CompletedProcess[str]:
    return children.run(["bash", "-c", text], **options)  # type: ignore[arg-type]


def test_output_status_input_and_folder(tmp_path: Path) -> None:
    done = bash("cat; pwd; echo err >&2; exit 3", given="in\n", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (3, f"in\n{tmp_path}\n", "err\n")
    assert bash("echo out; echo err >&2", merged=True).stdout == "out\nerr\n"
    assert bash("cat").stdout == "", "nothing to read is no terminal"


def test_bytes_and_what_is_no_text() -> None:
    assert children.run_for_bytes(["printf", r"\377x"]).stdout == b"\xffx"
    assert children.run(["printf", r"\377x"]).stdout == "\ufffdx"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_program_that_a_signal_ends(number: signal.Signals) -> None:
    assert bash(f"kill -{number.value} $$").returncode == -number


def test_the_environment_is_passed_on_byte_for_byte() -> None:
    """An interpreter in between would add LC_CTYPE under the locale C."""
    given = {
        "LANG": "C",
        "ODD": "a=b\nc",
        "PATH": os.environ["PATH"],
        "PYTHONPATH": "/of/the/caller",
        "EMPTY": "",
    }
    said = children.run(["env", "-0"], env=given).stdout
    assert dict(entry.split("=", 1) for entry in said.split("\0") if entry) == given


def test_only_the_standard_descriptors_are_passed_on(tmp_path: Path) -> None:
    with locks.exclusive(tmp_path, "x"):
        said = bash("ls -l /proc/self/fd").stdout
    assert ".lock" not in said
    assert "socket:" not in said


@pytest.mark.parametrize(
    ("name", "kind"), [("nosuch-program", FileNotFoundError), ("/etc/passwd", PermissionError)]
)
def test_a_program_that_cannot_be_started(name: str, kind: type[OSError]) -> None:
    with pytest.raises(kind) as caught:
        children.run([name])
    assert caught.value.filename == name


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        children.run(["true"], cwd=tmp_path / "none")


def test_what_the_caller_ignores_stays_ignored() -> None:
    """As under nohup."""
    code = (
        "from vllm_build.util.processes import children; print(children.run(['bash', '-c', "
        "'kill -HUP $$; echo alive']).stdout)"
    )
    command = ["bash", "-c", f"trap '' HUP; exec {sys.executable} -c \"{code}\""]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "alive\n\n"


def test_in_a_thread() -> None:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(bash("echo x").stdout))
    thread.start()
    thread.join()
    assert found == ["x\n"]


def test_too_long(mark: str) -> None:
    """Also of what holds the pipe open."""
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
    """A compiler removes its half-written files when it is asked to end."""
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
        "what ends by itself has time for it"
    )


def test_a_server_that_left_the_session_goes_on(mark: str) -> None:
    """A compiler cache's server, which other builds use: what it has is no lock of ours."""
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
    """A build that holds a lock and runs programs, which have started."""
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
        # Its programs ignore SIGTERM: for some seconds they are there, and so is the lock.
        assert marked(mark)
        with pytest.raises(BusyError), locks.exclusive(tmp_path, "x"):
            pass
        assert gone(mark, 30)
    # A process that ends loses its memory, where its mark is, some moments before its files.
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
    """A supervisor has the same open file: closing alone would not unlock it."""
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


HANDLED = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from vllm_build.util.processes import signals
try:
    with signals.raised():
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            print("cleaning", flush=True)
            for _ in range(int(sys.argv[2])):
                time.sleep(0.1)
except signals.Interrupted as interrupt:
    sys.exit(interrupt.status)
"""


@pytest.mark.parametrize("number", signals.ENDING, ids=lambda number: number.name)
def test_a_signal_is_an_exception(number: signal.Signals, root: Path) -> None:
    command = [*HEARING, sys.executable, "-c", HANDLED, str(root / "scripts"), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.communicate()[0] == "cleaning\n"
    assert process.returncode == 128 + number


def test_the_third_signal_ends_at_once(root: Path) -> None:
    command = [sys.executable, "-c", HANDLED, str(root / "scripts"), "6000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "cleaning\n"
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        process.wait(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM


def test_a_signal_while_a_child_is_started_waits() -> None:
    seen = []

    def start() -> None:
        with signals.raised():
            with signals.deferred(), signals.deferred():
                os.kill(os.getpid(), signal.SIGTERM)
                seen.append("noted down")
            seen.append("not reached")

    with pytest.raises(signals.Interrupted) as caught:
        start()
    assert seen == ["noted down"]
    assert caught.value.number == signal.SIGTERM


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals.raised(), signals.raised():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


FRONT_END = """
import subprocess, sys
hook = '''
import sys
sys.path.insert(0, sys.argv[1])
from vllm_build.util.processes import children, signals
with signals.ending("the build"), signals.ending_with_parent():
    with children.Child(["bash", "-c", "echo started; sleep 619"]): pass
'''
subprocess.run([sys.executable, "-c", hook, sys.argv[1]])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_hook_ends_with_its_front_end(number: signal.Signals, root: Path, mark: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(FRONT_END), str(root / "scripts")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(number)
        process.wait()
        assert gone(mark, 20)


def test_a_module_of_the_library_in_isolation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text("raise ImportError('poison')\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONHOME", "/proc/none")
    done = children.run(
        children.module("vllm_build", "archs", "--kernel", "9.0", "--targets", "9.0")
    )
    assert done.returncode == 0, done.stderr
    assert '"archs"' in done.stdout


def test_there_is_no_other_way_to_start_a_program(root: Path) -> None:
    """What starts one by itself leaves it behind.

    The probe and the launcher of compilers are programs of their own, below a supervisor.
    ``pip_process`` is one, too, where the Makefile runs it, before anything else can be imported;
    the library passes it ``children.run``.
    """
    ways = re.compile(
        r"subprocess\.(run|Popen|call|check_\w+|getoutput)\b|\bos\.(system|popen|fork|spawn\w*|posix_spawn\w*|exec\w+)\("
    )
    allowed = {
        "util/processes/children.py",
        "util/processes/supervisor.py",
        "entry.py",
        "native/compile_launcher.py",
        "util/processes/pip_process.py",
        "reuse/foreign/foreign_probe.py",
    }
    library = root / "scripts" / "vllm_build"
    found = {
        path.relative_to(library).as_posix()
        for path in library.rglob("*.py")
        if ways.search(path.read_text(encoding="utf-8"))
    }
    assert found == allowed
    calls = [
        call
        for path in library.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) in ("pip_process.environment", "pip_process.settings")
    ]
    assert len(calls) == 2
    assert all("children.run" in ast.unparse(call) for call in calls)


def test_without_python() -> None:
    assert children.without_python({"PYTHONPATH": "x", "PYTHONHOME": "y", "PATH": "z"}) == {
        "PATH": "z"
    }


@pytest.mark.usefixtures("hearing")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_an_end_that_setuptools_made_of_a_signal_keeps_its_status(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_commands() -> None:
        try:
            with signals.ending("CMake"):
                os.kill(os.getpid(), number)
        except KeyboardInterrupt as interrupt:
            message = "interrupted"
            raise SystemExit(message) from interrupt

    with pytest.raises(SystemExit) as caught, signals.ending("the build"):
        run_commands()
    assert caught.value.code == 128 + number
    assert "the build was interrupted" in capsys.readouterr().err


def test_another_end_is_left_alone() -> None:
    with pytest.raises(SystemExit) as caught, signals.ending("the build"):
        raise SystemExit(3)
    assert caught.value.code == 3
