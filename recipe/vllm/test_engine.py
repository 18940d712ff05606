# SPDX-License-Identifier: Apache-2.0
"""Generates with the installed engine, and compares the tokens with those of transformers.

The model is a Llama of a few megabytes with random weights, in float32, so nothing is downloaded
and the tokens of both must be equal. If torch sees no GPU, an engine over GPU kernels must refuse
to start, and say why.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

#: The engine reads these when it is imported: no downloads, no reports, a small cache, as many
#: threads as the caller allows, and one process, which imports everything once.
SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "GLOO_SOCKET_IFNAME": "lo",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
PROMPTS, LENGTH, NEW = 4, 24, 16


def make_model(folder: Path) -> None:
    """Write a small Llama with random weights into ``folder``; it has no tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        torch_dtype="float32",
    )
    LlamaForCausalLM(config).float().save_pretrained(folder)


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


def generated(folder: Path, prompts: list[list[int]]) -> list[list[int]]:
    """The tokens that the engine generates, greedily."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        str(folder), skip_tokenizer_init=True, dtype="float32", max_model_len=128, max_num_seqs=8
    )
    options = SamplingParams(temperature=0, max_tokens=NEW, ignore_eos=True, detokenize=False)
    asked = [{"prompt_token_ids": prompt} for prompt in prompts]
    done = llm.generate(asked, options, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in done]


def main() -> None:
    """Generate, or check the refusal.

    Raises:
        SystemExit: the platform is not ours, the tokens differ, or the engine starts without a GPU.
    """
    import torch

    import vllm
    from vllm._kernels import engine
    from vllm.platforms import current_platform

    device, found = engine.device(), f"{type(current_platform).__module__}"
    if device not in engine.PLATFORMS or not found.startswith("vllm._kernels.engine."):
        raise SystemExit(f"the platform is {found}, for kernels for {device}")
    prompts = [
        [(7 * number + 13 * place) % 1000 + 5 for place in range(LENGTH + number)]
        for number in range(PROMPTS)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder)
        if device != "cpu" and not torch.cuda.device_count():
            try:
                generated(folder, prompts)
            except RuntimeError as error:
                if "sees no GPU" not in str(error):
                    raise
                print(f"vllm {vllm.__version__} for {device} refuses to start here: {error}")
                return
            raise SystemExit(f"the engine for {device} starts without a GPU")
        wanted, got = expected(folder, prompts), generated(folder, prompts)
    if got != wanted:
        raise SystemExit(f"other tokens than those of transformers: {got}, expected {wanted}")
    print(
        f"vllm {vllm.__version__} for {device}: {PROMPTS} times {NEW} tokens, equal to those of "
        f"transformers, such as {got[0]}"
    )


if __name__ == "__main__":
    # It would make the engine choose a platform by itself.
    os.environ.pop("VLLM_TARGET_DEVICE", None)
    os.environ.update({name: os.environ.get(name, value) for name, value in SETTINGS.items()})
    # The engine's processes print their own errors, and this one's is the result.
    sys.exit(main())
