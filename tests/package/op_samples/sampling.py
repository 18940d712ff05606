# SPDX-License-Identifier: Apache-2.0
"""Sample calls of the samplers; tests/package/test_custom_ops.py describes the format."""

from __future__ import annotations

import torch


def _certain() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits with one token per row that is so likely that every seed draws it."""
    logits = torch.randn(3, 5)
    logits[range(3), [4, 0, 2]] = 1000.0
    return logits, torch.randint(0, 2**62, (3,))


SAMPLES = {
    "greedy_argmax": (lambda: (torch.randn(3, 5),), lambda logits: {"return": logits.argmax(-1)}),
    "fused_gumbel_argmax": (_certain, lambda logits, _seeds: {"return": logits.argmax(-1)}),
}
