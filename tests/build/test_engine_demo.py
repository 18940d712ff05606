# SPDX-License-Identifier: Apache-2.0
"""The demonstration's programs with servers that are no engine: starting, asking, failing, ending.

``tests/recipe/engine/test_demonstration.py`` runs it with the packaged engine.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import demo
import demo_generation
import demo_programs
import demo_server
import pytest
import small_model
from command_runs import HEARING, MARK, gone, marked

from vllm_build.util import paths

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = paths.source_root() / "scripts" / "engine_demo"
pytestmark = [
    pytest.mark.usefixtures("hearing"),
    pytest.mark.skipif(sys.version_info < (3, 11), reason="the engine needs Python 3.11"),
]

#: Answers like a server of the engine. It starts a process that ignores SIGTERM, as an engine may.
SERVER = """
import http.server, json, subprocess, sys
subprocess.Popen(["bash", "-c", "trap '' TERM; sleep 611; :"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200 if self.path == "/health" else 404, {"path": self.path})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(200, {"got": body})
    def answer(self, status, document):
        text = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
print("listening", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def python(text: str, *words: str) -> list[str]:
    return [sys.executable, "-c", text, *words]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def port() -> int:
    return demo_server.free_port()


def test_a_server_answers_and_ends_with_all_its_processes(log: Path, port: int, mark: str) -> None:
    with demo_server.running(python(SERVER, str(port)), port, os.environ, log) as there:
        assert there.url == f"http://127.0.0.1:{port}"
        assert there.ask("/v1/completions", {"prompt": "a"}) == {"got": {"prompt": "a"}}
        with pytest.raises(
            demo_programs.DemoError, match=r"/none answers 404: .*\n(.*\n)*listening"
        ):
            there.ask("/none")
        assert len(marked(mark)) >= 3
    assert gone(mark, 5)
    with socket.socket() as probe:
        assert probe.connect_ex((demo_server.HOST, port)) != 0


def test_a_server_that_does_not_come_up_is_reported_with_its_log(
    log: Path, port: int, mark: str
) -> None:
    failing = python("print('loading'); print('no memory for the cache'); raise SystemExit(3)")
    with (
        pytest.raises(
            demo_programs.DemoError,
            match=r"(?s)ended before it answered \(exit status 3\)\nloading\nno memory",
        ),
        demo_server.running(failing, port, os.environ, log),
    ):
        raise AssertionError("it is not up")
    hanging = python("import time; print('loading', flush=True); time.sleep(611)")
    with (
        pytest.raises(demo_programs.DemoError, match="has not answered after 1 s\nloading"),
        demo_server.running(hanging, port, os.environ, log, limit=1),
    ):
        raise AssertionError("it is not up")
    assert gone(mark, 5)


def test_a_server_that_ends_by_itself_or_stops_answering(log: Path, port: int, mark: str) -> None:
    with demo_server.running(python(SERVER, str(port)), port, os.environ, log) as there:
        there.program.kill()
        with pytest.raises(demo_programs.DemoError, match=r"the server ended \(exit status -9\)"):
            there.require_running()
        with pytest.raises(demo_programs.DemoError, match="gives no answer"):
            there.ask("/health")
    assert gone(mark, 5)


def test_a_port_in_use_is_refused(port: int) -> None:
    demo_server.require_free(port)
    with socket.socket() as other:
        other.bind((demo_server.HOST, port))
        other.listen()
        with pytest.raises(demo_programs.DemoError, match=f"port {port} .*choose another port"):
            demo_server.require_free(port)
        # The same at the command line, before anything is started.
        assert demo.main(["--serve", str(port)]) == 1


def test_a_program_that_fails_or_takes_too_long(log: Path, mark: str) -> None:
    demo_programs.run(python("print('done')"), os.environ, log, 60)
    assert log.read_text(encoding="utf-8") == "done\n"
    with pytest.raises(demo_programs.DemoError, match=r"failed \(exit status 1\)\nno such thing"):
        demo_programs.run(python("raise SystemExit('no such thing')"), os.environ, log, 60)
    with pytest.raises(demo_programs.DemoError, match=r"1 s\n\(it printed nothing\)"):
        demo_programs.run(["bash", "-c", "trap '' TERM; sleep 611; :"], os.environ, log, 1)
    assert gone(mark, 5)


def test_a_message_has_the_cause_and_the_end_of_a_log(log: Path) -> None:
    lines = ["loading", "ERROR: the cause", *(f"frame {n}" for n in range(60)), "x" * 999]
    log.write_text("\n".join(lines), encoding="utf-8")
    shown = demo_programs.last_lines(log).splitlines()
    assert shown[: demo_programs.FIRST_LINES] == lines[1 : 1 + demo_programs.FIRST_LINES]
    assert shown[demo_programs.FIRST_LINES] == "…"
    assert len(shown) == demo_programs.FIRST_LINES + 1 + demo_programs.LAST_LINES
    assert len(shown[-1]) == demo_programs.WIDTH + 1
    log.write_text("loading\nready\n", encoding="utf-8")
    assert demo_programs.last_lines(log) == "loading\nready"


#: A demonstration whose model needs no torch, and whose server is the one above.
SCENE = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(FOLDER)!r})
import demo, demo_server
demo_server.command = lambda model, port, options=(): [
    sys.executable, "-c", {SERVER!r}, str(port)
]
def run(words, env, log, limit):
    model = Path(words[2])
    model.mkdir()
    (model / "weights").write_bytes(bytes(2_000_000))
demo.demo_programs.run = run
sys.exit(demo.main(["--serve", "0"]))
"""


@contextlib.contextmanager
def serving(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The process of a demonstration that serves, and the lines that it printed until then."""
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [*HEARING, *python(SCENE)], env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if "/metrics" in line:
                break
        yield process, lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_server_and_removes_its_files(
    tmp_path: Path, mark: str, number: signal.Signals
) -> None:
    with serving(tmp_path) as (process, lines):
        assert "a llama of random weights, 2 MB" in lines[0]
        assert len(list(tmp_path.glob("vllm-demo-*"))) == 1
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    assert gone(mark, 5)
    assert list(tmp_path.iterdir()) == []


#: A signal arrives when a program has been started and is not recorded yet.
EARLY = f"""
import os, signal, subprocess, sys
from pathlib import Path
sys.path.insert(0, {str(FOLDER)!r})
import demo_programs
start = subprocess.Popen
def popen(*words, **options):
    program = start(*words, **options)
    os.kill(os.getpid(), signal.SIGTERM)
    return program
demo_programs.subprocess.Popen = popen
demo_programs.raise_for_signals()
try:
    with demo_programs.started(["sleep", "611"], os.environ, Path(os.devnull)):
        raise AssertionError("the signal is lost")
except demo_programs.Ended as ended:
    print(ended)
"""


def test_a_signal_while_a_program_starts_ends_it(mark: str) -> None:
    done = subprocess.run([*HEARING, *python(EARLY)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ended by SIGTERM\n"), done.stderr
    assert gone(mark, 5)


def test_the_lines_to_copy_are_requests_that_the_server_gets(tmp_path: Path, mark: str) -> None:
    with serving(tmp_path) as (process, lines):
        copied = [shlex.split(line) for line in lines if line.startswith("  curl ")]
        assert len(copied) == 5
        answers = []
        for words in copied:
            (url,) = (word for word in words if word.startswith("http://127.0.0.1:"))
            headers = dict([words[words.index("-H") + 1].split(": ")]) if "-H" in words else {}
            body = words[words.index("-d") + 1].encode() if "-d" in words else None
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            try:
                request = urllib.request.Request(url, body, headers)  # noqa: S310 - http, see above
                with opener.open(request) as answer:
                    answers.append(answer.read().decode())
            except urllib.error.HTTPError as error:  # the server here knows no GET
                answers.append(error.read().decode())
        process.terminate()
    assert answers[0] == '{"path": "/v1/models"}'
    assert '"prompt": "To build the packages"' in answers[1]
    assert '"messages": [{"role": "user"' in answers[2]
    assert '"stream": true' in answers[3]
    assert answers[4] == '{"path": "/metrics"}'
    assert gone(mark, 5)


def test_the_engine_has_a_home_of_its_own_and_no_variables_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/none")
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "4")
    env = demo.environment(tmp_path)
    assert env["HOME"] == str(tmp_path / "home")
    assert env["HF_HUB_OFFLINE"] == "1"
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "4", "the user's value counts"
    assert {"PYTHONPATH", "VLLM_TARGET_DEVICE"}.isdisjoint(env)


def test_refusals_are_shown_and_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = f"error: vllm's kernels here are for cuda, but torch 2.13.0 {demo_generation.REFUSAL}"
    refusing = python(f"import sys; print('starting'); sys.exit({said!r})")
    monkeypatch.setattr(demo_server, "command", lambda *_: refusing)
    assert demo.show_refusal(tmp_path, dict(os.environ)) == said
    shown = said.removeprefix("error: ")
    assert capsys.readouterr().out == f"vllm serve refuses to start here: {shown}\n"
    for other in ("print('serving')", "raise SystemExit('another error')", f"print({said!r})"):
        monkeypatch.setattr(demo_server, "command", lambda *_, text=other: python(text))
        with pytest.raises(demo_programs.DemoError, match="does not refuse to serve"):
            demo.show_refusal(tmp_path, dict(os.environ))


def test_long_texts_are_cut(tmp_path: Path) -> None:
    assert demo.quoted('a "b"\n') == '"a \\"b\\"\\n"'
    assert demo.quoted("a" * 200) == '"' + "a" * 95 + '…"'
    (tmp_path / "weights").write_bytes(bytes(1_600_000))
    assert demo.size_of(tmp_path) == "2 MB"
    assert demo.rate(64, 0.5) == "64 tokens in 0.50 s, 128 tokens per second"


def test_the_programs_say_what_they_take() -> None:
    for name in ("demo", "small_model"):
        done = subprocess.run(
            [sys.executable, "-B", str(FOLDER / f"{name}.py"), "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith(f"usage: {name}.py")


def test_small_models_use_the_documents_of_the_tree(root: Path) -> None:
    texts = small_model.tree_text()
    assert {root / "README.md", root / "docs" / "serving.md"} <= set(texts)
    assert small_model.Sizes(hidden=512, heads=4).head == 128
    assert small_model.SPECIAL[:4] == ("<unk>", "<s>", "</s>", "<pad>")


def test_the_mark_is_seen(mark: str) -> None:
    """The tests above must not pass because marks do not reach the programs."""
    with demo_programs.started(["sleep", "611"], os.environ, Path(os.devnull)):
        deadline = time.monotonic() + 60
        while not marked(mark) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert marked(mark)
        assert os.environ[MARK] == mark
    assert gone(mark, 5)
