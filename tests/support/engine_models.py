# SPDX-License-Identifier: Apache-2.0
"""Small models with random weights, one for each architecture whose tokens are compared.

The weights are larger than transformers would draw them, so that attention is not uniform and the
choice of experts is not a tie. Norms and biases are random too. An error in any of these parts
therefore changes tokens: :data:`CONTROLS` lists changes for which a test proves it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

VOCABULARY = 1024
#: Tokens that a sequence can have.
LENGTH = 192


@dataclass(frozen=True)
class Model:
    """One architecture.

    Attributes:
        config: the name of the configuration's class in transformers.
        values: its arguments, besides :data:`_COMMON`.
        scale: the standard deviation of the weights.
        control: arguments that another model has. With them, the engine must generate other tokens.
        latent: attention over latent rows (MLA), whose caches the engine neither shares nor fills
            in chunks on a CPU.
    """

    config: str
    values: Mapping[str, Any]
    scale: float = 0.06
    control: Mapping[str, Any] = field(default_factory=dict)
    latent: bool = False


_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "max_position_embeddings": LENGTH,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}


def _rope(**values: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, **values}


MODELS: Mapping[str, Model] = {
    "llama": Model(
        "LlamaConfig",
        {"num_attention_heads": 8, "num_key_value_heads": 2},
        control={"rope_parameters": _rope(rope_theta=20000.0)},
    ),
    "qwen3": Model(
        "Qwen3Config",
        {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64},
        control={"rope_parameters": _rope(rope_theta=20000.0)},
    ),
    "mixtral": Model(
        "MixtralConfig",
        {
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "sliding_window": None,
        },
        control={"num_experts_per_tok": 1},
    ),
    "gemma3": Model(
        "Gemma3TextConfig",
        {
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "num_hidden_layers": 6,
            "query_pre_attn_scalar": 64,
            "sliding_window": 32,
            "layer_types": 2 * ["sliding_attention", "sliding_attention", "full_attention"],
            "tie_word_embeddings": True,
        },
        control={"sliding_window": 33},
    ),
    "deepseek_v2": Model(
        "DeepseekV2Config",
        {
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "q_lora_rank": 96,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 32,
            "qk_rope_head_dim": 64,
            "v_head_dim": 32,
            "moe_intermediate_size": 128,
            "n_routed_experts": 8,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
            "routed_scaling_factor": 1.5,
        },
        control={"routed_scaling_factor": 1.4},
        latent=True,
    ),
    "phi3": Model(
        "Phi3Config",
        {
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": _rope(partial_rotary_factor=0.5),
            "original_max_position_embeddings": LENGTH,
            "sliding_window": None,
        },
        control={"rope_parameters": _rope(partial_rotary_factor=0.75)},
    ),
    "gpt_neox": Model(
        "GPTNeoXConfig",
        {
            "num_attention_heads": 4,
            "rope_parameters": _rope(partial_rotary_factor=0.25),
            "use_parallel_residual": True,
        },
        control={"rope_parameters": _rope(partial_rotary_factor=0.5)},
    ),
}


def make(folder: Path, name: str) -> None:
    """Write the model ``name`` of :data:`MODELS`, in float32 and without a tokenizer."""
    import torch  # noqa: PLC0415 - the tests read the tables without torch
    import transformers  # noqa: PLC0415 - as above

    model = MODELS[name]
    torch.manual_seed(0)
    config = getattr(transformers, model.config)(
        **{**_COMMON, "initializer_range": model.scale, **model.values}
    )
    made = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif not parameter.any():
                raise AssertionError(f"{name}: transformers left a matrix of {model.config} zero")
    made.save_pretrained(folder)


#: The lengths of the prompts, in tokens. The last four begin with the same :data:`SHARED` tokens.
LENGTHS = (3, 17, 33, 47, 70, 81, 90, 101)
SHARED = 64
#: Tokens to generate for each prompt.
NEW = 24


def prompts() -> list[list[int]]:
    """Prompts of :data:`LENGTHS` tokens, none of which is special."""
    found = []
    for number, length in enumerate(LENGTHS):
        seed = 0 if length > SHARED else number
        tokens = [(97 * place * (seed + 3) + 31 * seed) % 1000 + 5 for place in range(length)]
        if length > SHARED:
            tokens[SHARED:] = [(token + 11 * number) % 1000 + 5 for token in tokens[SHARED:]]
        found.append(tokens)
    return found
