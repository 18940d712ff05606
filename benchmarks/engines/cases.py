# SPDX-License-Identifier: Apache-2.0
"""The cases: models, number formats, and sizes of batches and prompts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Model:
    """A Llama with the sizes of a known model and random weights.

    Attributes:
        like: the model that has these sizes.
        vocabulary, hidden, inner, layers, heads, kv_heads: sizes.
        tied: whether the output layer is the embedding.
    """

    like: str
    vocabulary: int
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    tied: bool

    @property
    def head(self) -> int:
        """The size of a head."""
        return self.hidden // self.heads

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        attention = 2 * self.hidden * (self.heads + self.kv_heads) * self.head
        layer = attention + 3 * self.hidden * self.inner + 2 * self.hidden
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return self.layers * layer + embeddings + self.hidden

    def cache(self, tokens: int, size: int) -> int:
        """Bytes of the keys and values of ``tokens`` with numbers of ``size`` bytes."""
        return 2 * self.layers * self.kv_heads * self.head * tokens * size


MODELS = {
    "0.5b": Model("Qwen2.5-0.5B", 151936, 896, 4864, 24, 14, 2, tied=True),
    "1.1b": Model("TinyLlama-1.1B", 32000, 2048, 5632, 22, 32, 4, tied=False),
}
#: Format -> bytes of a number.
DTYPES = {"bfloat16": 2, "float32": 4}
BATCHES = (1, 8, 32)
PROMPTS = (16, 512, 2048)
MODES = ("eager", "compiled")
#: Tokens that a model's positions are made for.
CONTEXT = 4096
#: Sequences occupy whole blocks of so many tokens.
BLOCK = 128
GIB = 1 << 30


@dataclass(frozen=True)
class Case:
    """A measurement.

    Attributes:
        model, dtype, mode: of the engine.
        batch: requests at once; 0 for the start of the engine.
        prompt: tokens of each prompt.
    """

    model: str
    dtype: str
    mode: str
    batch: int = 0
    prompt: int = 0

    @property
    def group(self) -> tuple[str, str, str]:
        """Cases of the same group can run in the same processes."""
        return self.model, self.dtype, self.mode

    @property
    def starts(self) -> bool:
        """Whether the case is the start of the engine."""
        return self.batch == 0

    @property
    def key(self) -> str:
        """A name that identifies the case."""
        size = "start" if self.starts else f"batch {self.batch} prompt {self.prompt}"
        return f"{self.model} {self.dtype} {self.mode} {size}"

    @property
    def label(self) -> str:
        """A short name for tables."""
        dtype = {"bfloat16": "bf16", "float32": "f32"}[self.dtype]
        size = "start" if self.starts else f"batch {self.batch} prompt {self.prompt}"
        mode = "" if self.mode == "eager" else f" {self.mode}"
        return f"{self.model} {dtype}{mode} {size}"

    def cache_gib(self, new: int) -> int:
        """GiB of keys and values of the case with ``new`` tokens for each request."""
        blocks = math.ceil((self.prompt + new) / BLOCK) + 1
        tokens = max(self.batch, 1) * blocks * BLOCK
        return math.ceil(MODELS[self.model].cache(tokens, DTYPES[self.dtype]) / GIB)


def select(
    *,
    quick: bool,
    models: Sequence[str] = (),
    dtypes: Sequence[str] = (),
    batches: Sequence[int] = (),
    prompts: Sequence[int] = (),
    modes: Sequence[str] = (),
) -> list[Case]:
    """The chosen cases, in order; an empty choice is the default.

    ``quick`` narrows the defaults, not what the caller names.
    """
    names = list(models or (["0.5b"] if quick else MODELS))
    formats = list(dtypes or (["bfloat16"] if quick else DTYPES))
    sizes = list(batches or ([1, 8] if quick else BATCHES))
    lengths = list(prompts or ([16, 512] if quick else PROMPTS))
    groups = [
        (model, dtype, mode) for model in names for dtype in formats for mode in modes or ("eager",)
    ]
    cases = []
    for group in groups:
        cases.append(Case(*group))
        # From small to large, so that less memory is in use when a small case is measured.
        cases += sorted(
            (Case(*group, batch, prompt) for batch in sizes for prompt in lengths),
            key=lambda case: (case.batch * case.prompt, case.batch),
        )
    return cases


def memory_gib(group: Iterable[Case], peers: Sequence[str], new: int) -> float:
    """An estimate of the memory in GiB that the processes for a group's cases need together.

    Each process has the weights, keys and values, and 1.5 GiB of other things. transformers copies
    keys and values while it appends to them.
    """
    found = list(group)
    model, size = MODELS[found[0].model], DTYPES[found[0].dtype]
    cache = max(case.cache_gib(new) for case in found)
    each = model.parameters * size / GIB + 1.5
    return sum(each + cache * (2 if peer == "transformers" else 1) for peer in peers)


def fitting(
    group: Sequence[Case], peers: Sequence[str], new: int, available: float
) -> tuple[list[Case], list[Case]]:
    """Divide a group's cases into those that fit into ``available`` GiB, and the others."""
    fits = [case for case in group if memory_gib([case], peers, new) <= available]
    return fits, [case for case in group if case not in fits]
