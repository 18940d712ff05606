# SPDX-License-Identifier: Apache-2.0
"""Sample calls of the engine's ops; tests/package/test_custom_ops.py describes the format."""

from __future__ import annotations

import torch


def _batch() -> tuple[object, ...]:
    """Two requests of two and three tokens, with two blocks of four tokens each."""
    starts, table = torch.tensor([0, 2, 5]).int(), torch.tensor([[7, 1], [0, 3]]).int()
    return starts, torch.tensor([0, 5, 3, 4, 7]), table, torch.empty(5, dtype=torch.int64), 4


def _no_node() -> tuple[object, ...]:
    """No node: nothing changes on any machine."""
    return ([],)


def _slots(*_: object) -> dict[int, torch.Tensor]:
    return {3: torch.tensor([28, 5, 3, 12, 15])}


def _nothing(*_: object) -> dict[int, torch.Tensor]:
    return {}


SAMPLES = {
    "init_cpu_memory_env": (_no_node, _nothing),
    "compute_slot_mapping_kernel_impl": (_batch, _slots),
}
