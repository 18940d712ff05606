# SPDX-License-Identifier: Apache-2.0
"""The small models, and the prompts, with which tests compare the engine with transformers.

``scripts/engine_demo/small_model.py`` makes the models. Their weights are larger than those that
transformers would draw, so that attention is not uniform and the choice of experts is clear. An
error in either of them then changes tokens; the controls below prove it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Tokens in the vocabulary, and tokens that a sequence can have.
VOCABULARY, LENGTH = 1024, 192
#: The standard deviation of the weights, and the factor by which most models' embeddings are
#: larger.
SPREAD, EMBEDDING = 0.06, 8.0


@dataclass(frozen=True)
class Model:
    """One architecture.

    Attributes:
        control: keys of the configuration of another model. With them, the engine must generate
            other tokens.
        latent: attention over latent rows (MLA). On CPUs, the engine computes such prompts at once
            and keeps no prefixes.
        embedding: the factor by which its embeddings are larger.
        experts: it has experts. Where two are almost equal, a rounding chooses another one.
        half: float16 is permitted; upstream refuses it for models whose numbers overflow there.
        native: the engine has a model of its own; it runs the others with modules of transformers.
        keys: further keys of the configuration.
    """

    control: Mapping[str, Any]
    latent: bool = False
    embedding: float = EMBEDDING
    experts: bool = False
    half: bool = True
    native: bool = True
    keys: Mapping[str, Any] = field(default_factory=dict)


def _rope(**values: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, **values}}


#: Architecture of ``small_model`` -> what a comparison needs to know.
MODELS: Mapping[str, Model] = {
    "llama": Model(_rope(rope_theta=20000.0)),
    "qwen3": Model(_rope(rope_theta=20000.0)),
    "mixtral": Model({"num_experts_per_tok": 1}, experts=True),
    "gemma3": Model(
        {"sliding_window": 17},
        half=False,
        embedding=1.0,  # the model itself multiplies by the root of the hidden size
        keys={"tie_word_embeddings": False},
    ),
    "deepseek_v2": Model(
        {"routed_scaling_factor": 1.4},
        experts=True,
        latent=True,
        keys={"routed_scaling_factor": 1.5},
    ),
    "stablelm": Model(_rope(partial_rotary_factor=0.5)),
    "gpt_neox": Model(
        _rope(partial_rotary_factor=0.5), native=False, keys={"num_key_value_heads": 8}
    ),
    "phi": Model(_rope(partial_rotary_factor=0.25), native=False),
}

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
        tokens = [(97 * place * (seed + 3) + 31 * seed) % 1000 + 10 for place in range(length)]
        tokens[SHARED:] = [(token + 11 * number) % 1000 + 10 for token in tokens[SHARED:]]
        found.append(tokens)
    return found
