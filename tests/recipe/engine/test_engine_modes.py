# SPDX-License-Identifier: Apache-2.0
"""The server with a compiler, with speculative decoding, and with no variable set at all.

Each must generate the tokens of the usual server, greedily and in float32.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from engine_server import HOST, Program, Server, command, free_port, serving
from full_suite import full_only

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

COMPLETIONS = "/v1/completions"
#: The second one repeats itself, so its n-grams have drafts.
PROMPTS = (
    "The packages are built from one source tree with",
    "a test of the build, a test of the build, a test of the build, a test of",
)
OPTIONS = ("--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "8")
NGRAMS = {
    "method": "ngram",
    "num_speculative_tokens": 4,
    "prompt_lookup_min": 1,
    "prompt_lookup_max": 4,
}


def texts(server: Server, **changes: Any) -> list[str]:
    """The texts after the prompts, with three tokens' logarithms of probabilities each."""
    found = []
    for prompt in PROMPTS:
        body = {"prompt": prompt, "max_tokens": 48, "ignore_eos": True, "temperature": 0}
        answer = server.post(COMPLETIONS, {**body, "logprobs": 3, **changes})
        assert answer.status == 200, server.fail(str(answer.body))
        found.append(answer.text)
    return found


@pytest.fixture(scope="module")
def usual(server: Server) -> list[str]:
    return texts(server)


@full_only
def test_drafts_of_ngrams_change_no_token(
    prefix: Path, model: Path, tmp_path: Path, usual: list[str]
) -> None:
    options = (*OPTIONS, "--speculative-config", json.dumps(NGRAMS))
    with serving(prefix, model, tmp_path / "home", *options) as server:
        assert texts(server) == usual
        metrics = server.get("/metrics").body
        counts = {
            name: float(line.split()[-1])
            for line in metrics.splitlines()
            for name in ("draft_tokens", "accepted_tokens")
            if line.startswith(f"vllm:spec_decode_num_{name}_total")
        }
        assert counts["draft_tokens"] > counts["accepted_tokens"] > 0
        # Temperatures pass through our op for float32, and mixed ones through both others.
        sampled = {"temperature": 0.7, "seed": 11, "top_p": 0.9, "top_k": 40}
        assert len(set(texts(server, **sampled))) == len(PROMPTS)
        bodies = [{"temperature": t, "top_k": 1} for t in (0.01, 0.5, 2.0)]
        assert all(texts(server, **body) == usual for body in bodies)


@full_only
def test_with_a_compiler_the_model_is_compiled(
    compiling: Path, model: Path, tmp_path: Path, usual: list[str]
) -> None:
    """The environment is not activated, so only its interpreter says where the compiler is."""
    home = tmp_path / "home"
    with serving(compiling, model, home, *OPTIONS) as server:
        assert "No C++ compiler" not in server.log
        assert "Warming up model for the compilation" in server.log
        assert texts(server) == usual
        assert list((home / ".cache").rglob("*.so"))


@contextlib.contextmanager
def bare(line: list[str], log: Path, env: dict[str, str]) -> Iterator[Program]:
    program = Program(line, log, env, cwd=Path("/"))
    try:
        yield program
    finally:
        program.kill()


@full_only
def test_no_variable_is_needed(prefix: Path, model: Path, tmp_path: Path) -> None:
    """As under ``env -i``, in the root folder; only the home is set, for the caches."""
    port = free_port()
    words = command(prefix, "serve", str(model), "--host", HOST, "--port", str(port))
    env = {"HOME": str(tmp_path)}
    # Without this, the cache takes most of the machine's memory, or is refused on a busy machine.
    words += ["--max-model-len", "512", "--kv-cache-memory-bytes", "100000000"]
    with bare(words, tmp_path / "log", env) as program:
        program.wait_for("Application startup complete")
        assert program.stop() == 0
