# SPDX-License-Identifier: Apache-2.0
"""Token selection from logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace

if TYPE_CHECKING:
    import torch

_C = namespace("_C")


def greedy_argmax(logits: torch.Tensor) -> torch.Tensor:
    """Choose the token with the largest logit of each row, as ``logits.argmax(-1)`` does.

    Of equal logits, the first is chosen. NaN is greater than every number.

    Source: vLLM's interface.

    Args:
        logits: ``[rows, vocabulary]``, at least one token.

    Returns:
        ``[rows]``, int64.
    """
    return _C.greedy_argmax(logits)


def fused_gumbel_argmax(logits: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """Draw a token from ``softmax(logits)`` for each row.

    The token is ``argmax(logits + g)``, where ``g`` are independent samples of the Gumbel
    distribution. It depends only on its row's logits and seed, not on other rows, threads or the
    instruction set.

    ``g`` of element ``i`` is made from 48 random bits of Philox4x32-7, with the seed as key and
    ``i`` as counter; ``csrc/sampling/sampling.h`` has the details. Tokens with logit ``-inf`` are
    never drawn; a row that has no others gives 0. If a row contains NaN, its first NaN is chosen.

    Source: Gumbel, Statistical Theory of Extreme Values, 1954; Maddison et al., A* Sampling, 2014
    (arXiv:1411.0030); Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011.

    Args:
        logits: ``[rows, vocabulary]``, at least one token.
        seeds: ``[rows]``, int64, any values; rows with equal logits and seeds get equal tokens.

    Returns:
        ``[rows]``, int64.
    """
    return _C.fused_gumbel_argmax(logits, seeds)
