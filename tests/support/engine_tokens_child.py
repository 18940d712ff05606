# SPDX-License-Identifier: Apache-2.0
"""Generates with transformers and with the engine, in a process of its own.

    python engine_tokens_child.py FOLDER REQUEST

The model is written into FOLDER. REQUEST is JSON with the ``model`` of engine_models.py and
``runs``: names with the engine's options. The last line on stdout is JSON with ``wanted``,
transformers' greedy tokens in float32; ``lead``, the smallest one of :meth:`Reference.tokens`; and
``runs``, what :func:`run` and :func:`differences` return.

All engines run in this process, one after the other, unless their options need several processes.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "engine_demo"))
sys.path.insert(0, str(Path(__file__).parent))

import engine_models
import small_model
import torch
import transformers

#: Bytes of the engine's cache of keys and values.
CACHE = 64 << 20
#: The part of the tokens whose experts a rounding seldom changes.
NEARLY_ALL = 0.95


class Reference:
    """The model in transformers, with weights that were rounded to ``dtype``.

    Args:
        folder: the model's files.
        dtype: the weights are rounded to it.
        exact: compute in float32, else in ``dtype``.
        cache: round keys and values to this type, as the engine's cache does.
    """

    def __init__(
        self,
        folder: Path,
        dtype: torch.dtype = torch.float32,
        *,
        exact: bool = True,
        cache: torch.dtype | None = None,
    ) -> None:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        self.model = (model.float() if exact else model).eval()
        self.model.generation_config.eos_token_id = None
        if cache is not None:
            self.model.set_attn_implementation(_rounding(cache))

    @torch.no_grad()  # type: ignore[untyped-decorator] # torch has no types in the check
    def tokens(self, prompt: list[int]) -> tuple[list[int], float]:
        """The greedy continuation, and the smallest lead of a token over the second one.

        The lead is a difference of logits. Where it is not far above the rounding errors, the
        choice is a tie.
        """
        done = self.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=engine_models.NEW,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        best = torch.stack(done.logits)[:, 0].float().topk(2).values
        found: list[int] = done.sequences[0, len(prompt) :].tolist()
        return found, float((best[:, 0] - best[:, 1]).min())

    @torch.no_grad()  # type: ignore[untyped-decorator] # torch has no types in the check
    def log_probabilities(self, tokens: list[int]) -> torch.Tensor:
        """Natural logarithms of the probabilities, ``[len(tokens) - 1, vocabulary]``, float32.

        Row i is the distribution of the token after ``tokens[: i + 1]``.
        """
        logits = self.model(torch.tensor([tokens])).logits[0, :-1]
        return torch.log_softmax(logits.float(), dim=-1)


def _rounding(dtype: torch.dtype) -> str:
    """Register an attention for transformers that rounds keys and values; return its name."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
    from transformers.modeling_utils import AttentionInterface

    def attention(module: Any, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> Any:
        key, value = (part.to(dtype).to(part.dtype) for part in (key, value))
        return sdpa_attention_forward(module, query, key, value, *rest, **named)

    name = f"sdpa_{str(dtype).removeprefix('torch.')}"
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, sdpa_mask)
    return name


def _hits(llm: Any) -> int:
    """Tokens that the engine found in its cache of prefixes."""
    return sum(
        int(metric.value) for metric in llm.get_metrics() if metric.name == "vllm:prefix_cache_hits"
    )


def run(folder: Path, options: dict[str, Any], prompts: list[list[int]]) -> dict[str, Any]:
    """Generate greedily with the engine.

    Args:
        folder: the model's files.
        options: those of ``vllm.LLM``. ``logprobs`` asks for the log-probabilities of every token,
            those of the prompts included. ``again`` generates twice and returns the second answer.
        prompts: token numbers.

    Returns:
        ``tokens``; ``settings``, with the engine's own view of what was asked; ``hits`` of the
        prefix cache; and ``logprobs``, for each prompt those of all tokens but the first.
    """
    from vllm import LLM, SamplingParams  # type: ignore[attr-defined] # of the engine
    from vllm.distributed import (  # type: ignore[import-not-found] # of the engine
        cleanup_dist_env_and_memory,
    )

    options = {
        "dtype": "float32",
        "max_model_len": engine_models.LENGTH,
        "max_num_seqs": len(prompts),
        "enable_prefix_caching": False,
        "enforce_eager": True,
        "kv_cache_memory_bytes": CACHE,
        "disable_log_stats": False,
        **options,
    }
    wants, again = options.pop("logprobs", False), options.pop("again", False)
    llm = LLM(str(folder), skip_tokenizer_init=True, seed=0, **options)
    try:
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        sampling = SamplingParams(
            temperature=0,
            max_tokens=engine_models.NEW,
            ignore_eos=True,
            detokenize=False,
            **({"logprobs": 0, "prompt_logprobs": 0} if wants else {}),
        )
        if again:
            llm.generate(asked, sampling, use_tqdm=False)
        done = llm.generate(asked, sampling, use_tqdm=False)
        config = llm.llm_engine.vllm_config
        compiled = config.compilation_config
        return {
            "tokens": [list(output.outputs[0].token_ids) for output in done],
            "logprobs": [_logprobs(output) for output in done] if wants else [],
            "hits": _hits(llm),
            "settings": {
                "chunked": bool(config.scheduler_config.enable_chunked_prefill),
                "batched_tokens": config.scheduler_config.max_num_batched_tokens,
                "sequences": config.scheduler_config.max_num_seqs,
                "prefix_caching": bool(config.cache_config.enable_prefix_caching),
                "cache": str(config.cache_config.cache_dtype),
                "parallel": config.parallel_config.tensor_parallel_size,
                "compilation": compiled.mode.name,
                "backend": compiled.backend,
                "architecture": config.model_config.architecture,
            },
        }
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()
        cleanup_dist_env_and_memory()


def _logprobs(output: Any) -> list[float]:
    """Log-probabilities of all tokens of a request but the first."""
    tokens = [*output.prompt_token_ids, *output.outputs[0].token_ids]
    rows = [*output.prompt_logprobs, *output.outputs[0].logprobs]
    return [row[token].logprob for token, row in zip(tokens[1:], rows[1:], strict=True)]


def differences(
    exact: Reference, other: Reference, prompts: list[list[int]], found: dict[str, Any]
) -> dict[str, float]:
    """Compare the engine's log-probabilities, and those of ``other``, with exact ones.

    Args:
        exact: float32 arithmetic with the same weights.
        other: transformers in the engine's dtype.
        prompts: token numbers.
        found: what :func:`run` returned.

    Returns:
        The mean, the maximum, the median and the quantile :data:`NEARLY_ALL` of the absolute
        differences, in nats: those of the engine for tokens of prompts and for generated ones, and
        those of ``other`` for all. ``regret`` is the most by which a token that the engine chose is
        less probable than the best one.
    """
    parts: dict[str, list[float]] = {"prompt": [], "generated": [], "other": []}
    regret = 0.0
    for prompt, tokens, logprobs in zip(prompts, found["tokens"], found["logprobs"], strict=True):
        sequence = [*prompt, *tokens]
        rows, same = exact.log_probabilities(sequence), other.log_probabilities(sequence)
        places = torch.tensor(sequence[1:])[:, None]
        wanted = rows.gather(1, places)[:, 0]
        gaps = (torch.tensor(logprobs) - wanted).abs().tolist()
        parts["prompt"] += gaps[: len(prompt) - 1]
        parts["generated"] += gaps[len(prompt) - 1 :]
        parts["other"] += (same.gather(1, places)[:, 0] - wanted).abs().tolist()
        chosen = slice(len(prompt) - 1, None)
        regret = max(regret, float((rows[chosen].amax(1) - wanted[chosen]).max()))
    found = {"regret": regret}
    for name, gaps in parts.items():
        values = torch.tensor(gaps)
        found[f"{name}_mean"], found[f"{name}_max"] = float(values.mean()), float(values.max())
        found[f"{name}_median"] = float(values.quantile(0.5))
        found[f"{name}_most"] = float(values.quantile(NEARLY_ALL))
    return found


def make(folder: Path, name: str) -> None:
    """Write the model ``name`` of engine_models.py."""
    small_model.make(
        folder,
        name,
        sizes=small_model.Sizes(vocabulary=engine_models.VOCABULARY, context=engine_models.LENGTH),
        tokenizer=False,
        initializer_range=engine_models.SPREAD,
        **engine_models.MODELS[name].keys,
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if not model.config.tie_word_embeddings:
        # Else attention outweighs the last token, and models repeat it.
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(engine_models.MODELS[name].embedding)
        model.save_pretrained(folder)


def expect(folder: Path, prompts: list[list[int]]) -> dict[str, Any]:
    """What transformers generates in float32."""
    reference = Reference(folder)
    pairs = [reference.tokens(prompt) for prompt in prompts]
    return {"wanted": [tokens for tokens, _ in pairs], "lead": min(lead for _, lead in pairs)}


def judge(
    folder: Path, options: dict[str, Any], prompts: list[list[int]], found: dict[str, Any]
) -> dict[str, Any]:
    """The ``differences`` of a run, and for a float8 cache those to a ``rounded`` reference."""
    dtype = getattr(torch, options.get("dtype", "float32"))
    cache = torch.float8_e4m3fn if options.get("kv_cache_dtype") == "fp8_e4m3" else None
    exact = Reference(folder, dtype)
    other = Reference(folder, dtype, exact=False, cache=cache)
    answer = {"differences": differences(exact, other, prompts, found)}
    if cache is not None:
        same = Reference(folder, dtype, cache=cache)
        answer["rounded"] = differences(same, exact, prompts, found)
    return answer


def main(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Make the model, generate with transformers, then with each engine."""
    make(folder, request["model"])
    prompts = engine_models.prompts()
    # The engine changes the classes of transformers that it computes with. So the references are in
    # a process without it.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as references:
        answer = references.submit(expect, folder, prompts).result()
        answer["runs"] = {}
        for name, options in request["runs"].items():
            found = run(folder, dict(options), prompts)
            if options.get("logprobs"):
                found |= references.submit(judge, folder, options, prompts, found).result()
            del found["logprobs"]
            answer["runs"][name] = found
    return answer


if __name__ == "__main__":
    result = main(Path(sys.argv[1]), json.loads(sys.argv[2]))
    print("\n" + json.dumps(result), flush=True)
