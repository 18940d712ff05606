# SPDX-License-Identifier: Apache-2.0
"""Where the engine's tokens and memory are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

_C = namespace("_C")


def init_cpu_memory_env(node_ids: Sequence[int]) -> None:
    """Take this process's memory from some NUMA nodes.

    The pages that the calling thread and its future threads allocate come from these nodes; several
    nodes take turns page by page. Pages that exist are moved as far as possible. On a machine with
    one node with memory, nothing is done. If the operating system forbids it, as it does in
    containers without the capability ``SYS_NICE``, the op warns and memory comes from all nodes.

    Source: Linux's manual, ``set_mempolicy(2)`` and ``migrate_pages(2)``.

    Args:
        node_ids: numbers of nodes that have memory. Nothing is done if there are none.
    """
    _C.init_cpu_memory_env(node_ids)


def compute_slot_mapping_kernel_impl(
    query_start_loc: torch.Tensor,
    positions: torch.Tensor,
    block_table: torch.Tensor,
    slot_mapping: torch.Tensor,
    block_size: int,
) -> None:
    """Compute the places of a batch's tokens in the cache.

    The slot of a token at position ``p`` of request ``r`` is
    ``block_table[r, p // block_size] * block_size + p % block_size``.

    Source: Kwon et al., Efficient Memory Management for Large Language Model Serving with
        PagedAttention, 2023 (arXiv:2309.06180), section 4.

    Args:
        query_start_loc: ``[requests + 1]`` int32: the first token of each request, and the end of
            the last one.
        positions: ``[tokens]`` int64.
        block_table: ``[requests or more, blocks of a request]`` int32. A position without a block,
            and a negative block, are errors.
        slot_mapping: ``[tokens or more]`` int64, overwritten for the requests' tokens.
        block_size: tokens in a block, at least 1.
    """
    _C.compute_slot_mapping_kernel_impl(
        query_start_loc, positions, block_table, slot_mapping, block_size
    )
