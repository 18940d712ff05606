# SPDX-License-Identifier: Apache-2.0
"""Writes a model with random weights that transformers and the engine can read.

The demonstration, the tests and the benchmarks of the engine use it. It needs torch, transformers
and tokenizers, downloads nothing, and needs neither vllm nor ``vllm_build``::

    python scripts/engine_demo/small_model.py FOLDER --architecture qwen3 --dtype bfloat16

The tokenizer is trained on the text of this tree, so the tokens that a model generates are readable
pieces of words. The same arguments and the same versions of the packages give the same weights.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).resolve().parents[2]

#: The tokens with a meaning; their numbers are their places.
UNKNOWN, BEGIN, END, PADDING = "<unk>", "<s>", "</s>", "<pad>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
SPECIAL = (UNKNOWN, BEGIN, END, PADDING, *ROLES)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{{ message['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

#: The text of the tree has no more pieces than this. Larger vocabularies have tokens without text.
LARGEST_TOKENIZER = 8192


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model; the defaults are those of a model of a few megabytes.

    A head has ``hidden // heads`` elements. The engine's attention on CPUs takes heads of 32, 64,
    80, 96, 112, 128, 160, 192, 224, 256 and 512 elements.
    """

    vocabulary: int = 2048
    hidden: int = 256
    intermediate: int = 704
    layers: int = 3
    heads: int = 8
    kv_heads: int = 2  # without effect on deepseek_v2, gpt_neox
    context: int = 2048
    experts: int = 8  # mixtral, deepseek_v2
    experts_per_token: int = 2
    window: int = 16  # gemma3: tokens that a sliding layer sees; every second layer slides

    @property
    def head(self) -> int:
        """The elements of a head."""
        return self.hidden // self.heads


def _rotary(part: float) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": part}


def _common(sizes: Sizes) -> dict[str, Any]:
    return {
        "vocab_size": sizes.vocabulary,
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.intermediate,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "max_position_embeddings": sizes.context,
        "bos_token_id": SPECIAL.index(BEGIN),
        "eos_token_id": SPECIAL.index(END),
        "pad_token_id": SPECIAL.index(PADDING),
    }


def _llama(sizes: Sizes) -> dict[str, Any]:
    return {"head_dim": sizes.head}


def _mixtral(sizes: Sizes) -> dict[str, Any]:
    return {
        "head_dim": sizes.head,
        "num_local_experts": sizes.experts,
        "num_experts_per_tok": sizes.experts_per_token,
    }


def _gemma3(sizes: Sizes) -> dict[str, Any]:
    kinds = ("sliding_attention", "full_attention")
    return {
        "head_dim": sizes.head,
        "query_pre_attn_scalar": sizes.head,
        "sliding_window": sizes.window,
        "layer_types": [kinds[layer % 2] for layer in range(sizes.layers)],
    }


def _deepseek_v2(sizes: Sizes) -> dict[str, Any]:
    """Latent rows of 512 + 64 elements, as in the published models; the first layer is dense."""
    return {
        "num_key_value_heads": sizes.heads,
        "head_dim": 64,
        "q_lora_rank": None,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "n_routed_experts": sizes.experts,
        "n_shared_experts": 1,
        "num_experts_per_tok": sizes.experts_per_token,
        "moe_intermediate_size": max(32, sizes.intermediate // 4),
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
    }


def _gpt_neox(_: Sizes) -> dict[str, Any]:
    return {"rope_parameters": _rotary(0.25)}


def _phi(_: Sizes) -> dict[str, Any]:
    return {"rope_parameters": _rotary(0.5)}


#: Name -> the class of transformers with the configuration, and what the shape adds to the common
#: keys. The engine runs gpt_neox and phi through transformers' modules, and the others by its own.
_SHAPES: dict[str, tuple[str, Callable[[Sizes], dict[str, Any]]]] = {
    "llama": ("LlamaConfig", _llama),
    "qwen3": ("Qwen3Config", _llama),
    "mixtral": ("MixtralConfig", _mixtral),
    "gemma3": ("Gemma3TextConfig", _gemma3),
    "deepseek_v2": ("DeepseekV2Config", _deepseek_v2),
    "stablelm": ("StableLmConfig", _gpt_neox),
    "gpt_neox": ("GPTNeoXConfig", _gpt_neox),
    "phi": ("PhiConfig", _phi),
}
ARCHITECTURES = tuple(_SHAPES)


def tree_text() -> list[Path]:
    """The documents of this tree."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")])


def train_tokenizer(texts: Iterable[Path] | None = None, size: int = LARGEST_TOKENIZER) -> Any:
    """Train a tokenizer of byte pairs on ``texts``, or on the documents of this tree.

    Only its ASCII characters are tokens, so that every sequence of tokens is text. Others are
    unknown.

    Returns:
        A ``PreTrainedTokenizerFast`` with a chat template and at most ``size`` tokens.

    Raises:
        ValueError: ``size`` is too small for the characters and the special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted({*map(chr, range(32, 127)), "\n"})
    if size < len(alphabet) + len(SPECIAL):
        raise ValueError(
            f"a vocabulary of {size} tokens, expected at least {len(alphabet) + len(SPECIAL)} for "
            "the characters and the special tokens"
        )
    raw = Tokenizer(models.BPE(unk_token=UNKNOWN))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    # In the alphabet of this pre-tokenizer, a space and a line's end are other characters.
    known = sorted(
        {c for piece in raw.pre_tokenizer.pre_tokenize_str("".join(alphabet)) for c in piece[0]}
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=known, show_progress=False
    )
    lines = (
        line.encode("ascii", "ignore").decode("ascii")
        for path in (tree_text() if texts is None else texts)
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True)
    )
    raw.train_from_iterator(lines, trainer)
    raw.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, SPECIAL.index(BEGIN))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token=UNKNOWN,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PADDING,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def configure(architecture: str, sizes: Sizes, **more: Any) -> Any:
    """The configuration of a model, an object of transformers; ``more`` are keys of its own.

    Raises:
        ValueError: the architecture is not one of :data:`ARCHITECTURES`.
    """
    import transformers

    if architecture not in _SHAPES:
        raise ValueError(
            f"no shape for the architecture {architecture}, expected one of "
            f"{', '.join(ARCHITECTURES)}"
        )
    kind, shape = _SHAPES[architecture]
    return getattr(transformers, kind)(**{**_common(sizes), **shape(sizes), **more})


def make(
    folder: Path,
    architecture: str = "llama",
    *,
    sizes: Sizes | None = None,
    dtype: str = "float32",
    seed: int = 0,
    tokenizer: bool = True,
    **more: Any,
) -> Path:
    """Write a model into ``folder``: its configuration, weights (safetensors) and tokenizer.

    Norms and biases are random, too, so that a mistake with them changes the result.

    Args:
        folder: is created; files of an earlier model in it are replaced.
        architecture: one of :data:`ARCHITECTURES`.
        sizes: default: ``Sizes()``.
        dtype: of the weights: ``float32``, ``bfloat16`` or ``float16``.
        seed: of the random weights.
        tokenizer: False leaves the tokenizer out.
        more: further keys of the configuration, such as ``tie_word_embeddings``, or
            ``initializer_range``, the spread of the weights.

    Returns:
        The folder.

    Raises:
        ValueError: see :func:`configure` and :func:`train_tokenizer`.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    sizes = sizes or Sizes()
    config = configure(architecture, sizes, **more)
    spread = float(getattr(config, "initializer_range", 0.02))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn(weight.shape).to(weight.dtype), alpha=spread)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    if tokenizer:
        trained = train_tokenizer(size=min(sizes.vocabulary, LARGEST_TOKENIZER))
        trained.model_max_length = sizes.context
        trained.save_pretrained(folder)
    return folder


def main(words: list[str] | None = None) -> None:
    """Write the model that the command line describes."""
    parser = argparse.ArgumentParser(description="Writes a small model with random weights.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="llama")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-tokenizer", action="store_true")
    for size in fields(Sizes):
        parser.add_argument(f"--{size.name.replace('_', '-')}", type=int, default=size.default)
    given = vars(parser.parse_args(words))
    sizes = Sizes(**{size.name: given[size.name] for size in fields(Sizes)})
    make(
        given["folder"],
        given["architecture"],
        sizes=sizes,
        dtype=given["dtype"],
        seed=given["seed"],
        tokenizer=not given["no_tokenizer"],
    )


if __name__ == "__main__":
    main()
