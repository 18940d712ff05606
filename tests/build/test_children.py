# SPDX-License-Identifier: Apache-2.0
"""Programs that a build starts behave as if it had started them without a supervisor."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from vllm_build.util import locks
from vllm_build.util.processes import children

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("measured")


def bash(text: str, **options: object) -> subprocess.CompletedProcess[str]:
    return children.run(["bash", "-c", text], **options)  # type: ignore[arg-type]


def test_output_status_input_and_folder(tmp_path: Path) -> None:
    done = bash("cat; pwd; echo err >&2; exit 3", given="in\n", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (3, f"in\n{tmp_path}\n", "err\n")
    assert bash("echo out; echo err >&2", merged=True).stdout == "out\nerr\n"
    assert bash("cat").stdout == "", "standard input is empty, not a terminal"


def test_bytes_and_what_is_no_text() -> None:
    assert children.run_for_bytes(["printf", r"\377x"]).stdout == b"\xffx"
    assert children.run(["printf", r"\377x"]).stdout == "\ufffdx"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_program_that_a_signal_ends(number: signal.Signals) -> None:
    assert bash(f"kill -{number.value} $$").returncode == -number


def test_the_environment_is_passed_on_byte_for_byte() -> None:
    """A Python interpreter in between would add LC_CTYPE under the locale C."""
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
    """A build may run under nohup."""
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
    """A program that is started without a supervisor can outlive its build.

    The probe and the compile launcher are separate programs that run under a supervisor. So is
    ``pip_process`` when the Makefile runs it before anything else can be imported; the library
    passes it ``children.run``.
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
