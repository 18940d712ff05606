# SPDX-License-Identifier: Apache-2.0
"""The benchmark of engines: runs of scripted processes, and the official wheel's environment."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

import process_ends
import pytest
from bench_modules import engine_modules  # noqa: F401 - a fixture

from vllm_build.util.errors import ConfigurationError

IDENTITY = {"threads": "2"}

#: Answers as an engine's process does. A child of its own lives until its group is ended. The file
#: "fails" makes the engine of that name fail.
SCRIPT = """
import json, subprocess, sys
from pathlib import Path
name, settings = sys.argv[1], json.loads(sys.argv[3])
folder = Path(settings["folder"])
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with (folder / "log").open("a") as log:
    print(f"{name} starts {child.pid} {settings['batch']} {settings['length']}", file=log)
sample = {"start": {"wall": 1.0, "cpu": 2.0}, "memory": 5}
print(json.dumps({"torch": "2", "sample": sample}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    with (folder / "log").open("a") as log:
        print(f"{name} {asked['batch']} {asked['prompt']} {asked['seed']}", file=log)
    if (folder / "fails").exists() and (folder / "fails").read_text() == name:
        print(json.dumps({"failed": "RuntimeError: no", "restart": True}), flush=True)
        continue
    phase = {"tokens": 1, "wall": 1.0, "cpu": 1.0, "machine": 1.0}
    print(json.dumps({"prefill": phase, "decode": phase, "memory": 1, "others": 0.0}), flush=True)
"""


@pytest.fixture
def scripted(engines: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Options with scripted engines; their messages are in the file ``log``."""
    (tmp_path / "peer").mkdir()
    (tmp_path / "peer" / "__init__.py").touch()
    (tmp_path / "peer" / "child.py").write_text(SCRIPT)
    monkeypatch.setattr(engines.session, "FOLDER", tmp_path)
    runner = engines.session.Runner(Path(sys.executable), dict(os.environ), False)
    runners = {"ours": runner, "official": runner}
    return engines.session.Options(runners, 2, 64, tmp_path / "logs", lambda: 100.0)


def run(engines: Any, options: Any, folder: Path, **chosen: Any) -> Any:
    """Run the cases; return the record and what the engines were asked since the last run."""
    log = folder / "log"
    log.write_text("")
    record = engines.record.Record(folder / "engine.json", IDENTITY, fresh=False)
    wanted = engines.cases.select(quick=True, **chosen)
    engines.session.run(wanted, options, record, lambda _: folder)
    return record, log.read_text().splitlines()


def test_engines_take_turns_and_end(engines: Any, scripted: Any, tmp_path: Path) -> None:
    record, log = run(engines, scripted, tmp_path, batches=[1, 8], prompts=[16])
    words = [line.split() for line in log]
    starts = [line[0] for line in words if line[1] == "starts"]
    assert starts == ["ours", "official", "official", "ours", "ours", "official"]
    assert {tuple(line[3:]) for line in words if line[1] == "starts"} == {("8", str(16 + 64 + 64))}
    assert [" ".join(line) for line in words if line[1] != "starts"] == [
        *("ours 1 16 0", "official 1 16 0", "official 1 16 1", "ours 1 16 1"),
        *("ours 8 16 0", "official 8 16 0", "official 8 16 1", "ours 8 16 1"),
    ]
    for line in words:
        if line[1] == "starts":
            assert process_ends.ends(int(line[2]), 30)
    assert [len(found.samples["official"]) for found in record.results.values()] == [2, 2, 2]
    assert record.about["peers"]["ours"] == {"torch": "2"}


def test_an_interrupted_run_continues_with_the_next_case(
    engines: Any, scripted: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(engines, scripted, tmp_path, batches=[1], prompts=[16])
    capsys.readouterr()
    record, log = run(engines, scripted, tmp_path, batches=[1, 8], prompts=[16])
    assert [line for line in log if "starts" not in line] == [
        *("ours 8 16 0", "official 8 16 0", "official 8 16 1", "ours 8 16 1")
    ]
    assert len(record.results) == 3
    assert len(capsys.readouterr().out.splitlines()) == 2 + 3  # the head, and each case
    assert run(engines, scripted, tmp_path, batches=[1, 8], prompts=[16])[1] == []


def test_an_engine_that_fails_takes_no_more_turns_in_that_case(
    engines: Any, scripted: Any, tmp_path: Path
) -> None:
    (tmp_path / "fails").write_text("official")
    record, log = run(engines, scripted, tmp_path, batches=[1, 8], prompts=[16])
    assert [line for line in log if "starts" not in line] == [
        *("ours 1 16 0", "official 1 16 0", "ours 1 16 1"),
        *("ours 8 16 0", "official 8 16 0", "ours 8 16 1"),
    ]
    assert engines.report.problems(record.results.values(), "official") == [
        "0.5b bf16 batch 1 prompt 16: RuntimeError: no",
        "0.5b bf16 batch 8 prompt 16: RuntimeError: no",
    ]
    (tmp_path / "fails").unlink()
    _, log = run(engines, scripted, tmp_path, batches=[1, 8], prompts=[16])
    assert len([line for line in log if "starts" not in line]) == 8


def test_a_case_that_does_not_fit_is_not_run(engines: Any, scripted: Any, tmp_path: Path) -> None:
    scripted.available = lambda: 5.0
    record, log = run(engines, scripted, tmp_path, batches=[1], prompts=[16])
    assert log == []
    assert {found.findings["ours"][0] for found in record.results.values()} == {"skipped"}


class Fixed:
    """An engine that generates ``extra`` tokens too many."""

    def __init__(self, extra: int) -> None:
        self.extra = extra

    def generate(self, prompts: list[list[int]], new: int, phases: Any) -> list[list[int]]:
        for count in range(1, new + 1):
            phases.feed([count] * len(prompts))
        return [prompt[: new + self.extra] for prompt in prompts]


def test_a_sample_has_both_phases_and_the_first_tokens(
    engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    child, asked = engines.peer.child, {"batch": 2, "prompt": 20, "new": 10, "seed": 3}
    monkeypatch.setitem(child.ENGINES, "ours", lambda settings: Fixed(settings["extra"]))
    found = child.Peer("ours", {"vocabulary": 100, "extra": 0}).sample(asked)
    assert found["prefill"]["tokens"] == 40
    assert found["decode"]["tokens"] == 18
    assert found["others"] >= 0
    assert found["tokens"] == [prompt[:8] for prompt in child.prompts(3, 2, 20, 100)]
    with pytest.raises(RuntimeError, match="11 tokens were generated instead of 10"):
        child.Peer("ours", {"vocabulary": 100, "extra": 1}).sample(asked)


def test_the_pins_are_of_the_wheel_that_the_kernels_are_compared_with(engines: Any) -> None:
    official = importlib.import_module("kernels.official")
    text = engines.official_venv.PINS.read_text(encoding="utf-8")
    assert f"{official.NAME}=={official.VERSION} \\\n    --hash=sha256:{official.SHA256}\n" in text
    assert re.search(rf"^torch=={re.escape(official.TORCH)}\S+\+cpu ", text, re.MULTILINE)
    names = re.findall(
        r"^([a-z0-9-]+)==\S+ \\\n    --hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE
    )
    assert len(names) == len(set(names)) == text.count("==")
    assert not {"torchvision", "torchaudio", "torchcodec"} & set(names)


def test_an_interpreter_of_another_version_is_refused(engines: Any, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 3.9\n")
    python.chmod(0o755)
    runner = engines.session.Runner(python, {}, False)
    with pytest.raises(ConfigurationError, match=r"is Python 3\.9"):
        engines.official_venv.runner(runner, None)


def test_wrong_options_are_refused(
    engines: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert engines
    program = importlib.import_module("bench_engine")

    def refused(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["bench_engine.py", *words])
        with pytest.raises(SystemExit) as end:
            program.arguments()
        assert end.value.code == 2
        return capsys.readouterr().err

    assert "--threads are positive" in refused("--threads", "many")
    assert "--new is at least 2" in refused("--new", "1")
    assert "at most 4096 tokens" in refused("--prompts", "4090")
    assert "invalid choice: 'cuda'" in refused("--peers", "cuda")
    monkeypatch.setattr(sys, "argv", ["bench_engine.py", "--quick"])
    assert program.arguments().rounds == 2
