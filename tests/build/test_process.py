# SPDX-License-Identifier: Apache-2.0
"""Running the build programs: the shown output, the log, and the messages of failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from vllm_build.native import logged_process
from vllm_build.util import paths
from vllm_build.util.errors import BuildError, ResourceError, ToolchainError

if TYPE_CHECKING:
    from pathlib import Path

NINJA = """\
[1/9] Building CXX object CMakeFiles/_C.dir/a.cc.o
[2/9] Building CXX object CMakeFiles/_C.dir/b.cc.o
FAILED: [code=1] CMakeFiles/_C.dir/b.cc.o
/usr/bin/c++ -Werror=error: -o CMakeFiles/_C.dir/b.cc.o -c /src/b.cc
In file included from /src/b.cc:3:
/src/b.h:7:5: error: 'x' was not declared in this scope
    7 |     x = 1;
      |     ^
[3/9] Building CXX object CMakeFiles/_C.dir/c.cc.o
FAILED: [code=1] CMakeFiles/_C.dir/c.cc.o
/src/c.cc:1:1: error: another unit
ninja: build stopped: subcommand failed.
"""


def test_first_error_of_the_first_failed_unit() -> None:
    assert logged_process.first_error(NINJA).splitlines() == [
        "FAILED: [code=1] CMakeFiles/_C.dir/b.cc.o",
        "/src/b.h:7:5: error: 'x' was not declared in this scope",
        "    7 |     x = 1;",
        "      |     ^",
    ]


@pytest.mark.parametrize(
    ("output", "first"),
    [
        (
            "-- Looking\nCMake Error at CMakeLists.txt:3 (message):\n  no\n",
            "CMake Error at CMakeLists.txt:3 (message):",
        ),
        (
            "[ 50%] Building CXX object b.cc.o\nb.cc:1:2: error: bad\nmake: *** [all] Error 2\n",
            "b.cc:1:2: error: bad",
        ),
        (
            (
                "FAILED: _C.so\nc++ -o _C.so\n/usr/bin/ld: a.o: undefined reference to `f'\n"
                "collect2: error: ld returned 1\n"
            ),
            "FAILED: _C.so",
        ),
        ("one\ntwo\n", "one"),
        ("", ""),
    ],
)
def test_first_line_of_other_failures(output: str, first: str) -> None:
    assert logged_process.first_error(output).splitlines()[:1] == ([first] if first else [])


def test_a_link_failure_names_the_symbol() -> None:
    output = (
        "[2/2] Linking\nFAILED: _C.so\nc++ -o _C.so\nld: a.o: in function `g':\n"
        "a.cc:(.text+0x5): undefined reference to `f'\n"
    )
    assert (
        logged_process.first_error(output).splitlines()[1]
        == "a.cc:(.text+0x5): undefined reference to `f'"
    )


def test_nothing_recognised_shows_the_end() -> None:
    lines = [f"line {number}" for number in range(50)]
    assert logged_process.first_error("\n".join(lines)).splitlines() == lines[30:]


def script(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return [sys.executable, str(path)]


def run(tmp_path: Path, command: list[str], *, verbose: bool = False) -> str:
    return logged_process.run(
        command,
        cwd=tmp_path,
        env=os.environ,
        what="the build",
        log=tmp_path / "build.log",
        verbose=verbose,
    )


def test_progress_is_shown_and_all_is_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = script(
        tmp_path,
        "print('[1/2] Building x'); print('chatter'); print('-- Found y'); print('[ 50%] Building "
        "z')",
    )
    output = run(tmp_path, command)
    assert output.splitlines() == ["[1/2] Building x", "chatter", "-- Found y", "[ 50%] Building z"]
    assert capfd.readouterr().err.splitlines() == [
        "[1/2] Building x",
        "-- Found y",
        "[ 50%] Building z",
    ]
    log = (tmp_path / "build.log").read_text(encoding="utf-8")
    assert log.splitlines() == ["+ " + " ".join(command), *output.splitlines()]


def test_verbose_shows_everything(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = script(tmp_path, "print('chatter')")
    run(tmp_path, command, verbose=True)
    assert capfd.readouterr().err.splitlines() == ["+ " + " ".join(command), "chatter"]


@pytest.mark.parametrize(
    ("said", "kind", "remedy"),
    [
        ("x.cc:1:1: error: no", BuildError, "build.log; VERBOSE=1"),
        ("as: x.o: No space left on device", ResourceError, "VLLM_BUILD_ROOT"),
        ("c++: fatal error: Killed signal terminated program cc1plus", BuildError, "MAX_JOBS"),
    ],
)
def test_failures_say_what_to_do(
    tmp_path: Path, said: str, kind: type[BuildError | ResourceError], remedy: str
) -> None:
    with pytest.raises(kind, match="the build failed \\(exit status 3\\)") as caught:
        run(tmp_path, script(tmp_path, f"print({said!r}); raise SystemExit(3)"))
    assert said in caught.value.message
    assert remedy in (caught.value.remedy or "")


def test_a_failure_on_a_full_disk_that_nobody_mentions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CMake reports success even if it could not write its files; Ninja then does not find them."""
    monkeypatch.setattr(
        logged_process.os, "statvfs", lambda _: SimpleNamespace(f_bavail=1, f_frsize=4096)
    )
    with pytest.raises(ResourceError, match="no space left on the disk of") as caught:
        run(
            tmp_path,
            script(tmp_path, "print('loading build.ninja: No such file'); raise SystemExit(1)"),
        )
    assert "No such file" in caught.value.message


def test_a_program_that_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="cannot be started"):
        run(tmp_path, [str(tmp_path / "none")])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_it_started_ends_with_it(tmp_path: Path, number: signal.Signals) -> None:
    """On a batch system's SIGTERM and on Ctrl-C, the child is asked to end and waited for."""
    child = script(
        tmp_path,
        """
        import signal, sys, time
        def end(*_):
            open("ended", "w").close()
            sys.exit(1)
        signal.signal(signal.SIGTERM, end)
        print("[1/2] started", flush=True)
        time.sleep(60)
        """,
    )
    parent = (
        "import sys, os; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from "
        "vllm_build.native import logged_process\n"
        f"logged_process.run({child!r}, cwd=Path('.'), env=os.environ, what='x', log=Path('log'), "
        "verbose=False)"
    )
    command = [sys.executable, "-c", parent, str(paths.source_root() / "scripts")]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert running.stderr.readline() == "[1/2] started\n"
        running.send_signal(number)
        running.communicate()
    assert (tmp_path / "ended").exists()
    assert running.returncode == (128 + number if number == signal.SIGTERM else -signal.SIGINT)


def test_a_signal_during_a_run_is_an_exit(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    text = f"import os, signal, time; os.kill({os.getpid()}, signal.SIGTERM); time.sleep(60)"
    with pytest.raises(SystemExit) as caught:
        run(tmp_path, script(tmp_path, text))
    assert caught.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_signals_are_left_alone(tmp_path: Path) -> None:
    import threading

    results: list[str] = []
    thread = threading.Thread(
        target=lambda: results.append(run(tmp_path, script(tmp_path, "print('done')")))
    )
    thread.start()
    thread.join()
    assert results == ["done\n"]
