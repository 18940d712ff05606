# SPDX-License-Identifier: Apache-2.0
"""Shows that the installed engine generates and serves: ``python scripts/engine_demo/demo.py``.

The interpreter is that of an environment with the package ``vllm``. The program makes a small model
with random weights, generates with the class ``LLM``, starts ``vllm serve`` on a free port of this
machine, and asks it for a completion and a chat. Nothing is downloaded, and nothing is left
running. With ``--serve PORT``, it only starts the server and leaves it running until Ctrl-C.

Where the kernels' device is missing, it shows that the engine is installed, which platform it has,
and that it refuses to serve.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import demo_generation
import demo_programs
import demo_server
from demo_programs import DemoError

HERE = Path(__file__).resolve().parent
#: Seconds for the program that generates.
LIMIT = 600.0
#: Variables of the engine: no downloads, no reports, 1 GiB for the cache, and no choice of
#: processors and networks, so that it runs in containers.
VARIABLES = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "GLOO_SOCKET_IFNAME": "lo",
}
#: Without compiling the model, which takes longer than everything else here.
OPTIONS = ("--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "8")
QUESTION = "What does the package contain?"
NEW = 32


def environment(folder: Path) -> dict[str, str]:
    """The variables of the engine's programs: this process's, with a home of their own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        # The first would bypass the platform of the installed kernels.
        if name != "VLLM_TARGET_DEVICE" and not name.startswith("PYTHON")
    }
    home = folder / "home"
    home.mkdir()
    return {
        **kept,
        **{name: kept.get(name, value) for name, value in VARIABLES.items()},
        "PYTHONNOUSERSITE": "1",
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"),
    }


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def quoted(text: str) -> str:
    """A text on one line, cut at a length that a terminal shows."""
    flat = json.dumps(text)
    return flat if len(flat) <= 100 else f'{flat[:96]}…"'  # noqa: PLR2004 - as above


def size_of(model: Path) -> str:
    """The bytes of a model's files, for people."""
    return f"{sum(path.stat().st_size for path in model.iterdir()) / 1e6:.0f} MB"


def rate(tokens: int, seconds: float) -> str:
    """Tokens in seconds, and per second."""
    return f"{tokens} tokens in {seconds:.2f} s, {tokens / seconds:.0f} tokens per second"


def show_generation(folder: Path, env: dict[str, str]) -> dict[str, Any]:
    """Make the model and generate; print and return what happened."""
    report = folder / "report.json"
    words = [sys.executable, str(HERE / "demo_generation.py"), str(folder / "model"), str(report)]
    # One process instead of three: it starts in a third of the time.
    alone = {**env, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    demo_programs.run(words, alone, folder / "generation.log", LIMIT)
    facts: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    say(
        f"vllm {facts['vllm']} for {facts['device']}: {facts['platform']}, torch {facts['torch']}, "
        f"{facts['threads']} threads; a llama with random weights, {size_of(folder / 'model')}"
    )
    if done := facts.get("generated"):
        prompt, text = next(iter(done["texts"].items()))
        equal = ", equal to those of transformers" if done.get("equal_to_transformers") else ""
        say(f"LLM: ready after {done['start_seconds']:.1f} s")
        say(f"LLM: {quoted(prompt)} -> {quoted(text)}")
        say(f"LLM: {done['prompts']} prompts, {rate(done['tokens'], done['seconds'])}{equal}")
    return facts


def ask(there: demo_server.Server) -> dict[str, Any]:
    """Ask the server for a completion and a chat; print and return the answers.

    Raises:
        DemoError: an answer has no text.
    """
    prompt = demo_generation.PROMPTS[0]
    greedy = {"model": demo_server.MODEL, "max_tokens": NEW, "temperature": 0, "ignore_eos": True}
    messages = [{"role": "user", "content": QUESTION}]
    # The first request of each kind also prepares what later ones use.
    there.ask("/v1/completions", {**greedy, "prompt": prompt, "max_tokens": 1})
    there.ask("/v1/chat/completions", {**greedy, "messages": messages, "max_tokens": 1})
    begin = time.monotonic()
    completion = there.ask("/v1/completions", {**greedy, "prompt": prompt})
    chat = there.ask("/v1/chat/completions", {**greedy, "messages": messages})
    seconds = time.monotonic() - begin
    texts = {
        "completion": completion["choices"][0]["text"],
        "chat": chat["choices"][0]["message"]["content"],
    }
    tokens = sum(answer["usage"]["completion_tokens"] for answer in (completion, chat))
    if not all(texts.values()) or tokens != 2 * NEW:
        raise DemoError(f"the server's answers have no text: {completion}, {chat}")
    say(f"completion: {quoted(prompt)} -> {quoted(texts['completion'])}")
    say(f"chat: {quoted(QUESTION)} -> {quoted(texts['chat'])}")
    say(f"over HTTP: {rate(tokens, seconds)}")
    return {**texts, "tokens": tokens, "seconds": seconds, "start_seconds": there.seconds}


def show_server(folder: Path, env: dict[str, str], device: str) -> dict[str, Any]:
    """Serve the model, and ask."""
    port = demo_server.free_port()
    options = (*OPTIONS, "--dtype", demo_generation.DTYPES[device])
    words = demo_server.command(folder / "model", port, options)
    with demo_server.running(words, port, env, folder / "server.log") as there:
        say(f"vllm serve: ready after {there.seconds:.1f} s at {there.url}")
        return ask(there)


def show_refusal(folder: Path, env: dict[str, str]) -> str:
    """Try to serve without the kernels' device; print and return the engine's line.

    Raises:
        DemoError: it does not refuse, or not in one clear line.
    """
    words = demo_server.command(folder / "model", demo_server.free_port())
    log = folder / "server.log"
    with demo_programs.started(words, env, log) as program:
        try:
            status = program.wait(LIMIT)
        except subprocess.TimeoutExpired:
            status = 0
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line for line in lines if demo_generation.REFUSAL in line]
    if not status or not said:
        raise demo_programs.failure(words, "does not refuse to serve", log)
    say(f"vllm serve refuses to start here: {said[-1].removeprefix('error: ')}")
    return said[-1]


def demonstrate(folder: Path, report: Path | None) -> None:
    """Generate and serve, or show the refusal."""
    env = environment(folder)
    facts = show_generation(folder, env)
    if "refusal" in facts:
        facts["serve_refusal"] = show_refusal(folder, env)
    else:
        facts["served"] = show_server(folder, env, facts["device"])
    if report is not None:
        report.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def curl(url: str, path: str, body: dict[str, Any] | None = None, *options: str) -> str:
    """A command line for a request."""
    words = ["curl", *options, f"{url}{path}"]
    if body is not None:
        words += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    return shlex.join(words)


def requests(url: str) -> list[str]:
    """Command lines to copy."""
    base: dict[str, Any] = {"model": demo_server.MODEL, "max_tokens": NEW}
    chat = {**base, "messages": [{"role": "user", "content": QUESTION}]}
    return [
        curl(url, "/v1/models"),
        curl(url, "/v1/completions", {**base, "prompt": demo_generation.PROMPTS[0]}),
        curl(url, "/v1/chat/completions", chat),
        curl(url, "/v1/chat/completions", {**chat, "stream": True}, "-N"),
        curl(url, "/metrics"),
    ]


def serve(folder: Path, port: int) -> None:
    """Serve a small model until a signal ends this program.

    Raises:
        DemoError: the server does not start, or ends by itself.
    """
    if port:
        demo_server.require_free(port)
    port = port or demo_server.free_port()
    env, model, log = environment(folder), folder / "model", folder / "server.log"
    making = [sys.executable, str(HERE / "small_model.py"), str(model)]
    spread = ["--initializer-range", str(demo_generation.SPREAD)]
    demo_programs.run([*making, *spread], env, folder / "model.log", LIMIT)
    say(f"starting vllm serve with a llama of random weights, {size_of(model)}; its log is {log}")
    with demo_server.running(demo_server.command(model, port, OPTIONS), port, env, log) as there:
        say(f"ready after {there.seconds:.1f} s at {there.url}; Ctrl-C ends it. Ask it with:")
        for line in requests(there.url):
            say(f"  {line}")
        there.require_running()


def main(words: list[str] | None = None) -> int:
    """Run the demonstration; returns its exit status."""
    parser = argparse.ArgumentParser(description="Shows that the installed engine works.")
    parser.add_argument("--report", type=Path, help="a file for what happened, as JSON")
    parser.add_argument("--serve", type=int, metavar="PORT", help="serve there (0: any port)")
    given = parser.parse_args(words)
    demo_programs.raise_for_signals()
    try:
        # A short path: the engine's sockets are in it.
        with tempfile.TemporaryDirectory(prefix="vllm-demo-") as name:
            if given.serve is None:
                demonstrate(Path(name), given.report)
            else:
                serve(Path(name), given.serve)
    except DemoError as error:
        say(f"error: {error}")
        return 1
    except demo_programs.Ended as ended:
        say(str(ended))
        return 128 + ended.number
    return 0


if __name__ == "__main__":
    sys.exit(main())
