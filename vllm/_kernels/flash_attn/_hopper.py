# SPDX-License-Identifier: Apache-2.0
"""FlashAttention 3 (Shah et al. 2024): its op with named arguments, and its scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm._kernels import loader
from vllm._kernels.flash_attn._arguments import optional_rows, rows, window_sides

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


def forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **given: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Call FlashAttention 3 with named arguments; missing ones get neutral values."""
    left, right = given.pop("window")
    result, lse, *_ = loader.namespace("_vllm_fa3_C").fwd(
        rows(q),
        rows(k),
        rows(v),
        optional_rows(given.get("k_new")),
        optional_rows(given.get("v_new")),
        None,  # q_v
        given.get("out"),
        given.get("cu_seqlens_q"),
        given.get("cu_seqlens_k"),
        None,  # cu_seqlens_k_new
        None,  # seqused_q
        given.get("seqused_k"),
        given.get("max_seqlen_q"),
        given.get("max_seqlen_k"),
        given.get("page_table"),
        given.get("kv_batch_idx"),
        given.get("leftpad_k"),
        given.get("rotary_cos"),
        given.get("rotary_sin"),
        None,  # seqlens_rotary
        None,  # q_descale
        None,  # k_descale
        None,  # v_descale
        given["softmax_scale"],
        given["causal"],
        left,
        right,
        given["softcap"],
        given.get("rotary_interleaved", True),
        given.get("scheduler_metadata"),
        given["num_splits"],
        None,  # pack_gqa
        0,  # sm_margin
        None,  # s_aux
        1,  # cp_world_size
        0,  # cp_rank
        None,  # cp_tot_seqused_k
    )
    return result, lse


def get_scheduler_metadata(
    batch_size: int,
    max_seqlen_q: int,
    max_seqlen_k: int,
    num_heads_q: int,
    num_heads_kv: int,
    headdim: int,
    cache_seqlens: torch.Tensor,
    qkv_dtype: torch.dtype | None = None,
    headdim_v: int | None = None,
    cu_seqlens_q: torch.Tensor | None = None,
    cu_seqlens_k_new: torch.Tensor | None = None,
    cache_leftpad: torch.Tensor | None = None,
    page_size: int | None = None,
    max_seqlen_k_new: int = 0,
    causal: bool = False,
    window_size: Sequence[int] | None = (-1, -1),
    has_softcap: bool = False,
    num_splits: int = 0,
    pack_gqa: bool | None = None,
    sm_margin: int = 0,
) -> torch.Tensor:
    """Plan how FlashAttention 3 divides its work, once for all layers of a model.

    Calls that receive the result must have the same sizes, lengths, mask and ``num_splits``.
    Otherwise they raise an error or compute wrong results.

    Args:
        batch_size: number of sequences.
        max_seqlen_q: queries of the longest sequence.
        max_seqlen_k: keys of the longest sequence.
        num_heads_q: number of query heads.
        num_heads_kv: number of key heads.
        headdim: size of a head.
        cache_seqlens: [batch_size] int32 on the GPU: keys of each sequence.
        qkv_dtype: bfloat16 or float16; None means bfloat16.
        headdim_v: size of a value head; None means ``headdim``.
        cu_seqlens_q: [batch_size + 1] int32: where each sequence's queries begin.
        cu_seqlens_k_new: [batch_size + 1] int32: the same for keys that are appended.
        cache_leftpad: [batch_size] int32: number of keys to ignore at the beginning.
        page_size: rows of a page; None without pages.
        max_seqlen_k_new: largest number of keys appended to a sequence.
        causal: whether a query sees no key after its position.
        window_size: (left, right): how many keys before and after its position a query sees; -1
            means all. None means (-1, -1).
        has_softcap: whether scores are capped.
        num_splits: largest number of parts that keys are split into; 0 chooses by the size of the
            GPU.
        pack_gqa: whether heads that share keys are rows of one tile; None chooses.
        sm_margin: multiprocessors to leave to other kernels.

    Returns:
        An int32 tensor on the GPU, for the argument ``scheduler_metadata`` of other functions.

    Raises:
        ImportError: the library is not installed.
        RuntimeError: no kernel is compiled for the sizes or the dtype.
    """
    import torch  # noqa: PLC0415 - importing this module must not import torch

    left, right = window_sides(window_size)
    metadata: torch.Tensor = loader.namespace("_vllm_fa3_C").get_scheduler_metadata(
        batch_size,
        max_seqlen_q,
        max_seqlen_k,
        num_heads_q,
        num_heads_kv,
        headdim,
        headdim if headdim_v is None else headdim_v,
        torch.bfloat16 if qkv_dtype is None else qkv_dtype,
        rows(cache_seqlens),
        cu_seqlens_q,
        None,  # cu_seqlens_k
        cu_seqlens_k_new,
        None,  # seqused_q
        cache_leftpad,
        page_size,
        max_seqlen_k_new,
        causal,
        left,
        right,
        has_softcap,
        num_splits,
        pack_gqa,
        sm_margin,
    )
    return metadata
