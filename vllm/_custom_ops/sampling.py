# SPDX-License-Identifier: Apache-2.0
"""Choosing tokens by their logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._ops import namespace

if TYPE_CHECKING:
    import torch

_C = namespace("_C")


def greedy_argmax(logits: torch.Tensor) -> torch.Tensor:
    """Choose the token with the largest logit of each row, as ``logits.argmax(-1)`` does: of equal ones the first; NaN is the largest.

    Source: the interface is vLLM's; greedy decoding needs no other.

    Args:
        logits: ``[rows, vocabulary]``, at least one token.

    Returns:
        ``[rows]``, int64.
    """
    return _C.greedy_argmax(logits)


def fused_gumbel_argmax(logits: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """Draw a token from ``softmax(logits)`` for each row: ``argmax(logits + g)``, ``g`` independent samples of Gumbel's distribution.

    A token depends on its row's logits and seed alone, on no other row, thread or instruction set.
    ``g`` of element ``i`` comes from Philox4x32-7 with the seed as its key and ``i`` as its
    counter, 48 random bits each; ``csrc/sampling/sampling.h`` has the details. Tokens with logit
    ``-inf`` are never drawn, unless a row has no other: then it gives 0. A row's first NaN is
    chosen over every number.

    Source: Gumbel, Statistical Theory of Extreme Values, 1954; Maddison et al., A* Sampling, 2014
    (arXiv:1411.0030); Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011.

    Args:
        logits: ``[rows, vocabulary]``, at least one token.
        seeds: ``[rows]``, int64, any values: rows with equal logits and seeds get equal tokens.

    Returns:
        ``[rows]``, int64.
    """
    return _C.fused_gumbel_argmax(logits, seeds)
