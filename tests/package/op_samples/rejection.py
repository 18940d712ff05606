# SPDX-License-Identifier: Apache-2.0
"""Sample calls of rejection sampling; tests/package/test_custom_ops.py describes the format.

Two requests have two drafts and one.
"""

from __future__ import annotations

import torch

_ENDS, _DRAFTS, _BONUS = torch.tensor([2, 3]), torch.tensor([4, 0, 2]), torch.tensor([8, 9])
_EMPTY = -1


def _output() -> torch.Tensor:
    return torch.full((2, 3), _EMPTY)


def _probabilities() -> tuple[torch.Tensor, torch.Tensor]:
    """``p`` and ``q``: the target excludes the second draft and prefers the others."""
    target, draft = torch.full((3, 5), 0.1), torch.full((3, 5), 0.2)
    target[range(3), _DRAFTS] = torch.tensor([0.6, 0.0, 0.6])
    return target, draft


def _random() -> tuple[object, ...]:
    target, draft = _probabilities()
    uniform = torch.full((3,), 0.5)
    return (
        _output(), _ENDS, _DRAFTS, draft, target, _BONUS, torch.tensor([1, 3, 1]), uniform,
        torch.zeros(2, dtype=torch.bool), 2, 5, False,
    )  # fmt: skip


def _recovered() -> tuple[object, ...]:
    target = torch.tensor([[0.1, 0.2, 0.3, 0.2, 0.2], [0.2] * 5, [0.5, 0.5, 0, 0, 0]])
    draft = torch.tensor([[0.2] * 5, [0.1, 0.1, 0.1, 0.1, 0.6], [0.0, 0.2, 0.3, 0.3, 0.2]])
    weights = torch.tensor([[9.0, 1, 1, 2, 1], [1.0, 2, 3, 4, 5]])
    return torch.empty_like(_DRAFTS), _ENDS, _DRAFTS, draft, target, weights, 5, False


SAMPLES = {
    "rejection_greedy_sample_kernel_impl": (
        lambda: (
            _output(),
            _ENDS,
            _DRAFTS,
            torch.tensor([4, 1, 2]),
            _BONUS,
            torch.ones(2, dtype=torch.bool),
            2,
        ),
        lambda *_: {0: torch.tensor([[4, 1, _EMPTY], [2, 9, _EMPTY]])},
    ),
    "rejection_random_sample_kernel_impl": (
        _random,
        lambda *_: {0: torch.tensor([[4, 3, _EMPTY], [2, 9, _EMPTY]])},
    ),
    "expand_kernel_impl": (
        lambda: (torch.empty(3), torch.tensor([0.0, 2.5]), _ENDS, 0, 1),
        lambda *_: {0: torch.tensor([1.0, 1.0, 2.5])},
    ),
    "sample_recovered_tokens_kernel_impl": (
        _recovered,
        lambda *_: {0: torch.tensor([2, 0, 1])},
    ),
}
