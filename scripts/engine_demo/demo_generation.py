# SPDX-License-Identifier: Apache-2.0
"""Makes a small model, generates with the engine's ``LLM``, and writes a report.

``demo.py`` runs this program, because the engine logs to the output of its process. The report says
which engine and platform there are. On a machine that lacks the kernels' device, it has the
engine's refusal instead of generated text.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import small_model

PROMPTS = (
    "To build the packages",
    "The engine",
    "A kernel is",
    "Without a compiler",
    "The tests",
    "One binary for every",
    "An error says",
    "Memory",
)
NEW = 32
#: Device of the kernels -> the dtype of the model. The engine's tokens equal those of transformers
#: in float32 only, which the kernels for GPUs do not have.
DTYPES = {"cpu": "float32", "cuda": "bfloat16", "rocm": "bfloat16"}
#: The spread of the weights, with which so small a model seldom repeats itself.
SPREAD = 0.1
#: The engine's words where the kernels' device is missing.
REFUSAL = "sees no GPU"


def describe() -> dict[str, Any]:
    """The installed engine, its platform and the devices that torch sees."""
    import torch

    import vllm
    from vllm._kernels import engine
    from vllm.platforms import current_platform

    return {
        "vllm": vllm.__version__,
        "torch": torch.__version__,
        "device": engine.device(),
        "platform": type(current_platform).__name__,
        "threads": torch.get_num_threads(),
        "gpus": torch.cuda.device_count(),
    }


def expected(folder: Path, prompts: list[list[int]]) -> list[list[int]]:
    """The tokens that transformers generates, greedily."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for prompt in prompts:
        done = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            do_sample=False,
        )
        found.append(done[0, len(prompt) :].tolist())
    return found


def generate(folder: Path, device: str) -> dict[str, Any]:
    """Generate with ``LLM`` and measure it; float32 tokens are compared with transformers'.

    Raises:
        SystemExit: other tokens than those of transformers.
        RuntimeError: the engine's refusal.
    """
    from vllm import LLM, SamplingParams  # type: ignore[attr-defined] # the engine's, not the tree's

    begin = time.monotonic()
    llm = LLM(
        str(folder),
        dtype=DTYPES[device],
        max_model_len=256,
        max_num_seqs=8,
        enforce_eager=True,
    )
    ready = time.monotonic()
    options = SamplingParams(temperature=0, max_tokens=NEW, min_tokens=NEW, ignore_eos=True)
    llm.generate(list(PROMPTS[:1]), options, use_tqdm=False)
    first = time.monotonic()
    done = llm.generate(list(PROMPTS), options, use_tqdm=False)
    seconds = time.monotonic() - first
    tokens = [list(output.outputs[0].token_ids) for output in done]
    found: dict[str, Any] = {
        "start_seconds": ready - begin,
        "seconds": seconds,
        "tokens": sum(map(len, tokens)),
        "prompts": len(PROMPTS),
        "texts": {
            prompt: output.outputs[0].text for prompt, output in zip(PROMPTS, done, strict=True)
        },
    }
    if device == "cpu":
        wanted = expected(folder, [list(output.prompt_token_ids) for output in done])
        if tokens != wanted:
            raise SystemExit(f"other tokens than those of transformers: {tokens}, not {wanted}")
        found["equal_to_transformers"] = True
    return found


def main(folder: Path, report: Path) -> None:
    """Write the model into ``folder``, and what the engine did into ``report``."""
    facts = describe()
    dtype = DTYPES[facts["device"]]
    small_model.make(folder, "llama", dtype=dtype, initializer_range=SPREAD)
    if facts["device"] == "cpu" or facts["gpus"]:
        facts["generated"] = generate(folder, facts["device"])
    else:
        try:
            generate(folder, facts["device"])
        except RuntimeError as error:
            if REFUSAL not in str(error):
                raise
            facts["refusal"] = str(error)
        else:
            raise SystemExit(f"the engine for {facts['device']} starts without a GPU")
    report.write_text(json.dumps(facts), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
