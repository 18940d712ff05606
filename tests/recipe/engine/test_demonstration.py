# SPDX-License-Identifier: Apache-2.0
"""The end of ``make package``, ``make serve-demo``, and small models, with the CPU packages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from command_runs import HEARING, MARK, gone, marked
from package_runs import OUTPUT, ROOT, Done, environ

from vllm_build.conda import engine_demo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
FOLDER = ROOT / "scripts" / "engine_demo"


@pytest.fixture
def mark(request: pytest.FixtureRequest) -> Iterator[str]:
    """The mark of programs of the test; those that are left at the end are killed."""
    value = f"{os.getpid()}-{request.node.name}"
    yield value
    for pid in marked(value):
        os.kill(pid, signal.SIGKILL)


def in_prefix(built: Done, home: Path, **more: str) -> dict[str, str]:
    prefix = built.result["prefix"]
    return {"PATH": f"{prefix}/bin:/usr/bin:/bin", "HOME": str(home), "TMPDIR": str(home), **more}


def test_the_job_ends_with_generated_text_and_answers(built: Done) -> None:
    facts: dict[str, Any] = built.result["engine"]
    assert facts["device"] == "cpu"
    assert facts["platform"] == "KernelsCpuPlatform"
    done, served = facts["generated"], facts["served"]
    assert done["equal_to_transformers"]
    assert len(done["texts"]) == done["prompts"] == 8
    assert all(text.isascii() and text.strip() for text in done["texts"].values())
    # One model, the same greedy choice, in another process and over HTTP.
    assert served["completion"] == next(iter(done["texts"].values()))
    assert served["chat"].isascii()
    assert served["tokens"] == 64
    for line in (
        "LLM: 8 prompts, 256 tokens in ",
        "completion: ",
        "chat: ",
        "over HTTP: 64 tokens",
    ):
        assert f"    {line}" in built.log
    assert built.log.count("tokens per second") == 2
    assert built.result["serve"] == engine_demo.SERVE_LINE
    assert {"run", "generate and serve"} <= set(built.result["seconds"])


def test_serve_demo_answers_until_ctrl_c(built: Done, tmp_path: Path, mark: str) -> None:
    command = [sys.executable, "-m", "vllm_build", "package", "cpu", "--serve", "0"]
    folder = tmp_path / "temporary"
    folder.mkdir()
    # A pipe that nothing reads meanwhile could fill up.
    with (
        (tmp_path / "errors").open("w+", encoding="utf-8") as errors,
        subprocess.Popen(
            [*HEARING, *command, "--output", str(OUTPUT)],
            cwd=ROOT,
            env={**environ(ROOT), "TMPDIR": str(folder), MARK: mark},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line.strip())
                if "/metrics" in line:
                    break
            assert said[0] == built.result["install"]
            (url,) = {line.split("/v1")[0].split()[-1] for line in said if line.endswith("/models")}
            (model,) = json.loads(ask(f"{url}/v1/models"))["data"]
            body = {
                "model": model["id"],
                "prompt": "The tests",
                "max_tokens": 8,
                "ignore_eos": True,
            }
            answer = json.loads(ask(f"{url}/v1/completions", body))
            assert answer["usage"]["completion_tokens"] == 8
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=240)
        finally:
            process.kill()
        errors.seek(0)
        messages = errors.read()
    assert process.returncode == 0, messages
    assert messages.rstrip().endswith("the server has ended")
    assert gone(mark, 10)
    assert list(folder.glob("vllm-demo-*")) == []


def ask(url: str, body: dict[str, Any] | None = None) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(  # noqa: S310 - http
        url,
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with opener.open(request, timeout=240) as answer:
        text: str = answer.read().decode()
    return text


def test_a_signal_while_the_engine_loads_leaves_nothing(
    built: Done, tmp_path: Path, mark: str
) -> None:
    with subprocess.Popen(
        [*HEARING, "python", str(FOLDER / "demo.py"), "--serve", "0"],
        env=in_prefix(built, tmp_path, **{MARK: mark}),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("starting vllm serve")
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert gone(mark, 10)
    assert list(tmp_path.glob("vllm-demo-*")) == []


def test_an_engine_that_fails_is_reported_with_its_last_lines(built: Done, tmp_path: Path) -> None:
    done = subprocess.run(
        ["python", str(FOLDER / "demo.py")],
        # More than any machine has.
        env=in_prefix(built, tmp_path, VLLM_CPU_KVCACHE_SPACE="1000000"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.startswith("error: python demo_generation.py model report.json failed")
    assert "1000000" in done.stdout
    assert "memory" in done.stdout


#: Makes, reads and runs a model of every architecture; prints facts as JSON.
MODELS = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import small_model
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, facts = Path(sys.argv[2]), {}
for name in small_model.ARCHITECTURES:
    made = small_model.make(folder / name, name, tokenizer=name == "llama")
    model = AutoModelForCausalLM.from_pretrained(made)
    with torch.no_grad():
        logits = model(torch.arange(5, 25)[None]).logits
    facts[name] = [list(logits.shape), bool(logits.isfinite().all()), model.config.model_type]
def weights(**options):
    made = small_model.make(folder / "again", tokenizer=False, **options)
    model = AutoModelForCausalLM.from_pretrained(made, dtype="auto")
    return {key: value.clone() for key, value in model.state_dict().items()}
def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)
first = weights(seed=1)
facts["same"] = same(first, weights(seed=1))
facts["other"] = same(first, weights(seed=2))
facts["norms"] = bool(first["model.norm.weight"].std() > 0.01)
facts["dtype"] = str(next(iter(weights(dtype="bfloat16").values())).dtype)
tokens = AutoTokenizer.from_pretrained(folder / "llama")
text = "To build the packages,\\n\\n  type `make package`."
facts["round"] = tokens.decode(tokens(text).input_ids, skip_special_tokens=True)
facts["few"] = len(tokens(text).input_ids)
facts["unknown"] = tokens("ü").input_ids
facts["chat"] = tokens.apply_chat_template(
    [{"role": "user", "content": "Hello"}], tokenize=False, add_generation_prompt=True
)
for wrong in (lambda: small_model.configure("gpt", small_model.Sizes()),
              lambda: small_model.train_tokenizer(size=50)):
    try:
        wrong()
    except ValueError as error:
        facts.setdefault("errors", []).append(str(error))
print(json.dumps(facts))
"""


def test_small_models_of_every_architecture(built: Done, tmp_path: Path) -> None:
    done = subprocess.run(
        ["python", "-c", MODELS, str(FOLDER), str(tmp_path / "models")],
        env=in_prefix(built, tmp_path, HF_HUB_OFFLINE="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads(done.stdout.splitlines()[-1])
    for name, kind in (
        *((name, name) for name in ("llama", "qwen3", "mixtral", "deepseek_v2", "stablelm")),
        *(("gemma3", "gemma3_text"), ("gpt_neox", "gpt_neox"), ("phi", "phi")),
    ):
        assert facts.pop(name) == [[1, 20, 2048], True, kind]
    assert facts.pop("same")
    assert not facts.pop("other")
    assert facts.pop("norms")
    assert facts.pop("dtype") == "torch.bfloat16"
    assert facts.pop("round") == "To build the packages,\n\n  type `make package`."
    assert facts.pop("few") < 20
    assert facts.pop("unknown")[0] == 1
    assert facts.pop("chat") == "<s><|user|>\nHello</s>\n<|assistant|>\n"
    errors = facts.pop("errors")
    assert "no shape for the architecture gpt, expected one of llama, " in errors[0]
    assert "a vocabulary of 50 tokens, expected at least 104" in errors[1]
    assert facts == {}
