# SPDX-License-Identifier: Apache-2.0
"""Sample calls of the engine's ops; tests/package/test_custom_ops.py describes the format."""

from __future__ import annotations

import torch


def _batch() -> tuple[object, ...]:
    """Two requests of two and three tokens, with two blocks of four tokens each."""
    starts, table = torch.tensor([0, 2, 5]).int(), torch.tensor([[7, 1], [0, 3]]).int()
    return starts, torch.tensor([0, 5, 3, 4, 7]), table, torch.empty(5, dtype=torch.int64), 4


SAMPLES = {
    # Every machine has memory, and node 0 of most has some; no node changes nothing anywhere.
    "init_cpu_memory_env": (lambda: ([],), lambda _nodes: {}),
    "compute_slot_mapping_kernel_impl": (
        _batch,
        lambda *_: {3: torch.tensor([28, 5, 3, 12, 15])},
    ),
}
