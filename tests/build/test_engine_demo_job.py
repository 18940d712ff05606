# SPDX-License-Identifier: Apache-2.0
"""``make package`` and ``make serve-demo`` around the demonstration, which is a script here."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from command_runs import HEARING, MARK, gone, marked

from vllm_build import cli
from vllm_build.conda import engine_demo, package_job, variants
from vllm_build.conda.package_request import Request
from vllm_build.settings.build_settings import Settings
from vllm_build.util.errors import ConfigurationError, PackageTestError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.util.console import Console

pytestmark = pytest.mark.usefixtures("measured")


def request_with(root: Path, output: Path, program: str) -> Request:
    """A request whose environment has ``program``, a shell script, as its interpreter."""
    request = Request(
        root, variants.load(root, "cpu"), "local", output, Settings.from_environ(os.environ)
    )
    python = request.prefix / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/bash\n{program}\n", encoding="utf-8")
    python.chmod(0o755)
    request.state.parent.mkdir()
    return request


def said(console: Console) -> str:
    text: str = console._rich.file.getvalue()  # type: ignore[attr-defined] # the fixture's buffer
    return text


def test_lines_and_facts_of_the_demonstration(root: Path, tmp_path: Path, console: Console) -> None:
    request = request_with(
        root,
        tmp_path,
        'echo "LLM: 8 prompts"; echo "$1 $2 $HOME" ; echo "{\\"device\\": \\"cpu\\"}" > "$3"',
    )
    facts = engine_demo.show(request, console, fresh=True)
    program = root / engine_demo.PROGRAM
    assert program.is_file()
    lines = ["LLM: 8 prompts", f"{program} --report {request.prefix}"]
    assert said(console) == "".join(f"    {line}\n" for line in lines)
    assert (facts["device"], facts["lines"]) == ("cpu", lines)


def test_a_run_with_the_same_packages_and_programs_is_shown_again(
    root: Path, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "echo again >> runs; echo one; echo '{}' > \"$3\""
    request = request_with(root, tmp_path, program)
    runs = request.prefix / "runs"

    def count(*, fresh: bool) -> int:
        assert engine_demo.show(request, console, fresh=fresh)["lines"] == ["one"]
        return len(runs.read_text(encoding="utf-8").splitlines())

    assert count(fresh=False) == 1, "there is no earlier run"
    assert "nothing has changed" not in said(console)
    assert count(fresh=False) == 1
    assert said(console).endswith("    nothing has changed since this run:\n    one\n")
    assert count(fresh=True) == 2
    (request.state.with_name("cpu-engine.json")).write_text("{", encoding="utf-8")
    assert count(fresh=False) == 3
    monkeypatch.setattr(engine_demo, "_programs", lambda _: "others")
    assert count(fresh=False) == 4


@pytest.mark.parametrize("first", ["error: the server ended", "Traceback (most recent call last):"])
def test_a_failure_has_the_last_lines_of_the_engine(
    root: Path, tmp_path: Path, console: Console, first: str
) -> None:
    request = request_with(
        root, tmp_path, f"echo LLM: ready; echo {shlex.quote(first)}; echo no memory; exit 1"
    )
    with pytest.raises(PackageTestError) as caught:
        engine_demo.show(request, console, fresh=True)
    assert caught.value.message.endswith(f"{first.removeprefix('error: ')}\nno memory")
    assert "exit status 1" in caught.value.message
    assert said(console) == "    LLM: ready\n"


#: Serves as ``vllm-build`` does.
SERVE = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from test_engine_demo_job import request_with
from vllm_build.conda import engine_demo
from vllm_build.util.console import Console
from vllm_build.util.processes import signals
try:
    with signals.raised():
        request = request_with(Path({root!r}), Path({output!r}), {program!r})
        engine_demo.serve(request, 8123, Console())
except signals.Interrupted as interrupt:
    sys.exit(interrupt.status)
"""


@pytest.mark.usefixtures("hearing")
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_ctrl_c_ends_the_server_and_is_no_failure(
    root: Path, tmp_path: Path, mark: str, number: signal.Signals, status: int
) -> None:
    text = SERVE.format(
        paths=[
            str(root / "scripts"),
            *(str(root / "tests" / name) for name in ("support", "build")),
        ],
        root=str(root),
        output=str(tmp_path / "output"),
        # The environment of the engine has none of this test's variables.
        program=f'export {MARK}={mark}; sleep 611 & echo "$2 $3"; echo ready; wait',
    )
    with subprocess.Popen(
        [*HEARING, sys.executable, "-B", "-c", text],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == ["--serve 8123\n", "ready\n"]
            # The shell goes on before sleep has been executed.
            deadline = time.monotonic() + 60
            while len(marked(mark)) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert len(marked(mark)) == 2, "this process and sleep"
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == status
    assert ("the server has ended" in errors) == (number == signal.SIGINT)
    assert gone(mark, 5)


def test_a_server_that_ends_by_itself_is_a_failure(
    root: Path, tmp_path: Path, console: Console, capfd: pytest.CaptureFixture[str]
) -> None:
    request = request_with(root, tmp_path, "echo starting; echo error: no memory; exit 1")
    with pytest.raises(PackageTestError, match="no memory"):
        engine_demo.serve(request, 0, console)
    assert capfd.readouterr().out == "starting\n"


@pytest.mark.parametrize("port", ["-1", "65536", "http", "٣", "1_0", ""])
def test_a_port_that_is_none_is_refused(port: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["package", "cpu", f"--serve={port}"]) == ConfigurationError.exit_code
    assert "expected: a number from 0 to 65535" in capfd.readouterr().err


def test_a_server_has_no_document(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["package", "cpu", "--serve", "8000", "--json"]
    assert cli.main(words) == ConfigurationError.exit_code
    assert "exclude each other" in json.loads(capfd.readouterr().out)["message"]


def test_the_command_demonstrates_or_serves_after_the_packages_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    calls: list[Any] = []
    result = {"seconds": {}, "units": [], "packages": [], "install": "INSTALL", "serve": "SERVE"}

    def package(_: object, __: object, *, install: bool, demonstrate: bool) -> dict[str, Any]:
        calls.append((install, demonstrate))
        return result

    monkeypatch.setattr(package_job, "package", package)
    monkeypatch.setattr(engine_demo, "serve", lambda _, port, __: calls.append(port))
    words = ["package", "cpu", "--channel", "local", "--output", str(tmp_path)]
    assert cli.main(words) == 0
    assert capfd.readouterr().out == "INSTALL\nSERVE\n"
    assert cli.main([*words, "--serve", "8123"]) == 0
    assert capfd.readouterr().out == "INSTALL\n"
    assert cli.main([*words, "--build-only"]) == 0
    assert capfd.readouterr().out == "INSTALL\n"
    assert calls == [(True, True), (True, False), 8123, (False, True)]


def test_what_is_only_built_is_not_served(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["package", "cpu", "--build-only", "--serve", "8000"]
    assert cli.main(words) == ConfigurationError.exit_code
    assert "not allowed with argument --build-only" in capfd.readouterr().err


def test_make_serves(root: Path) -> None:
    make = ["make", "--dry-run", "--no-print-directory", "-C", str(root), "serve-demo"]
    for words, expected in (
        (["PORT=1 2"], ["cpu", "--serve", "1 2"]),
        ([], ["cpu", "--serve", "8000"]),
    ):
        done = subprocess.run([*make, *words], capture_output=True, text=True, check=True)
        (line,) = [line for line in done.stdout.splitlines() if "vllm-build package" in line]
        assert shlex.split(line)[-3:] == expected
