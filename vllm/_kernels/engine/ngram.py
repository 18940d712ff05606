# SPDX-License-Identifier: Apache-2.0
"""Drafts of tokens from repeated n-grams, without Numba, which the engine's own module needs.

The last tokens of a sequence are searched in the sequence itself. If they occurred before, the
tokens after that place are the draft (prompt lookup decoding; Saxena, 2023).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


def draft(tokens: np.ndarray, shortest: int, longest: int, count: int) -> np.ndarray:
    """The tokens that followed the longest earlier occurrence of the last tokens.

    Args:
        tokens: a sequence of tokens, [n].
        shortest: the fewest last tokens that must occur before; at least 1.
        longest: the most last tokens to look for.
        count: the length of the draft.

    Returns:
        At most ``count`` tokens, fewer at the end of the sequence, none without an occurrence. Of
        several occurrences of the same length, the first one counts.
    """
    size = len(tokens)
    if count <= 0 or size <= 1:
        return tokens[:0]
    # Ends of earlier occurrences of the last `length` tokens.
    ends = np.flatnonzero(tokens[:-1] == tokens[-1])
    length = 1
    found = ends
    while len(ends):
        found = ends
        if length == min(longest, size - 1):
            break
        ends = ends[ends >= length]
        ends = ends[tokens[ends - length] == tokens[size - 1 - length]]
        if len(ends):
            length += 1
    if not len(found) or length < shortest:
        return tokens[:0]
    start = int(found[0]) + 1
    return tokens[start : start + count]


class NgramProposer:
    """Drafts for the engine, in place of its class of the same name."""

    def __init__(self, vllm_config: Any) -> None:
        """Take the settings of speculative decoding from the engine's configuration."""
        settings = vllm_config.speculative_config
        self.min_n: int = settings.prompt_lookup_min
        self.max_n: int = settings.prompt_lookup_max
        self.k: int = settings.num_speculative_tokens
        self.max_model_len: int = vllm_config.model_config.max_model_len

    def propose(
        self,
        num_speculative_tokens: int,
        sampled_token_ids: Sequence[Sequence[int]],
        num_tokens_no_spec: np.ndarray,
        token_ids_cpu: np.ndarray,
        slot_mappings: object = None,  # noqa: ARG002 - the engine passes it by name
    ) -> list[list[int]]:
        """The drafts of a batch.

        Args:
            num_speculative_tokens: the longest draft.
            sampled_token_ids: the new tokens of each request; a request without any gets no draft.
            num_tokens_no_spec: the number of tokens of each request, [requests].
            token_ids_cpu: the tokens, [requests, longest sequence].
            slot_mappings: not used.

        Returns:
            A draft, which may be empty, for each request.
        """
        drafts = []
        for row, sampled in enumerate(sampled_token_ids):
            size = int(num_tokens_no_spec[row])
            count = min(num_speculative_tokens, self.max_model_len - size)
            tokens = token_ids_cpu[row, :size] if sampled else token_ids_cpu[row, :0]
            drafts.append(draft(tokens, self.min_n, self.max_n, count).tolist())
        return drafts

    def load_model(self, *_: object, **__: object) -> None:
        """There is no model to load."""
