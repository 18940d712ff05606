# SPDX-License-Identifier: Apache-2.0
"""Attention over packed sequences and caches, by FlashAttention 2 and 3.

Source: Dao, 2023 (version 2); Shah et al., 2024 (version 3).

Every function has upstream's argument names. If the caller requests no version, version 3 runs on
GPUs of compute capability 9.0 that have its library. Version 2 runs elsewhere, and for ALiBi
slopes, which version 3 does not support. Features that are not built raise an error: FlashAttention
4, dropout, attention sinks, context parallelism, and features of the other version.

In all functions, query ``i`` of a sequence with ``m`` queries and ``n`` keys is at the position of
key ``i + n - m``: masks are aligned to the last key. A query that sees no key gives zeros. The
logarithm of its sum is infinity in version 2 and minus infinity in version 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm._kernels import loader
from vllm._kernels.flash_attn import _versions
from vllm._kernels.flash_attn._arguments import optional_rows, refuse, rows, window_sides
from vllm._kernels.flash_attn._hopper import forward, get_scheduler_metadata
from vllm._kernels.flash_attn._versions import (
    DEFAULT_FA_VERSION,
    fa_version_unsupported_reason,
    is_fa_version_supported,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

__all__ = [
    "DEFAULT_FA_VERSION",
    "fa_version_unsupported_reason",
    "flash_attn_varlen_func",
    "flash_attn_with_kvcache",
    "get_scheduler_metadata",
    "is_fa_version_supported",
]


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    max_seqlen_q: int,
    cu_seqlens_q: torch.Tensor,
    max_seqlen_k: int,
    cu_seqlens_k: torch.Tensor | None = None,
    seqused_k: torch.Tensor | None = None,
    q_v: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Sequence[int] | None = None,
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: torch.Tensor | None = None,
    return_softmax_lse: bool = False,
    out: torch.Tensor | None = None,
    scheduler_metadata: torch.Tensor | None = None,
    q_descale: torch.Tensor | None = None,
    k_descale: torch.Tensor | None = None,
    v_descale: torch.Tensor | None = None,
    num_splits: int = 0,
    output_scale: torch.Tensor | None = None,
    fa_version: int | None = None,
    s_aux: torch.Tensor | None = None,
    cp_world_size: int = 1,
    cp_rank: int = 0,
    cp_tot_seqused_k: torch.Tensor | None = None,
    **others: Any,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Attention of packed sequences of different lengths, over packed or paged keys.

    Args:
        q: [total_q, heads, head_size], bfloat16 or float16.
        k: [total_k, kv_heads, head_size]; with ``block_table``, [pages, page_size, kv_heads,
            head_size], where ``page_size`` is a multiple of 16. ``kv_heads`` divides ``heads``.
        v: as ``k``.
        max_seqlen_q: queries of the longest sequence.
        cu_seqlens_q: [sequences + 1] int32: the beginning of each sequence in ``q``, and the end.
        max_seqlen_k: keys of the longest sequence, or more.
        cu_seqlens_k: the same for packed ``k``; None with ``seqused_k``.
        seqused_k: [sequences] int32: keys of each sequence, with ``block_table``.
        q_v: None; kernels for values whose size differs from that of keys are not built.
        dropout_p: 0; dropout is not built.
        softmax_scale: factor of the scores; None means 1 / sqrt(head_size).
        causal: whether a query sees no key after its position.
        window_size: (left, right): how many keys before and after its position a query sees; -1
            means all. None means (-1, -1).
        softcap: if above 0, scores become ``softcap * tanh(score / softcap)``.
        alibi_slopes: [heads] or [sequences, heads] float32: ``-slope * |distance|`` is added to
            each score. Version 2 only.
        deterministic: ignored; it affects only the backward pass, which is not built.
        return_attn_probs: False; the probabilities are not available.
        block_table: [sequences, pages of the longest sequence] int32.
        return_softmax_lse: whether to return the logarithm of each query's sum of exponentials as
            well.
        out: tensor to write the result to; None allocates one.
        scheduler_metadata: the result of :func:`get_scheduler_metadata` for these sequences.
            Version 3 only.
        q_descale: ignored, as are the next two: they belong to float8 kernels, which are not built.
        k_descale: see ``q_descale``.
        v_descale: see ``q_descale``.
        num_splits: number of parts that the keys are split into. Version 2 uses it only if each
            sequence has one query. Version 3 treats it as an upper limit. 0 lets the kernel choose;
            with 1, results do not depend on the batch.
        output_scale: None; float8 results are not built.
        fa_version: 2 or 3; None chooses by the device.
        s_aux: None; attention sinks are not built.
        cp_world_size: 1; context parallelism is not built.
        cp_rank: 0.
        cp_tot_seqused_k: None.
        others: arguments of other versions; all must be None.

    Returns:
        [total_q, heads, head_size] of q's dtype; with ``return_softmax_lse`` also [heads, total_q]
        float32.

    Raises:
        ImportError: the library is not installed.
        NotImplementedError: an argument needs another version, or a feature that is not built.
        RuntimeError: the kernels do not support the shapes, the dtypes or the head size.
        ValueError: the lengths of the keys are missing, or given twice.
    """
    del deterministic, q_descale, k_descale, v_descale, cp_rank
    version = _versions.chosen(fa_version, q, slopes=alibi_slopes is not None)
    refuse(
        version,
        q_v=q_v,
        dropout_p=dropout_p or None,
        return_attn_probs=return_attn_probs,
        scheduler_metadata=scheduler_metadata if version != _versions.HOPPER else None,
        alibi_slopes=alibi_slopes if version == _versions.HOPPER else None,
        output_scale=output_scale,
        s_aux=s_aux,
        cp_world_size=cp_world_size if cp_world_size != 1 else None,
        cp_tot_seqused_k=cp_tot_seqused_k,
        **others,
    )
    if (cu_seqlens_k is None) == (seqused_k is None):
        raise ValueError(
            "cu_seqlens_k and seqused_k are both missing or both given, expected one of them"
        )
    if block_table is not None and seqused_k is None:
        raise ValueError(
            "block_table is given without seqused_k, expected the number of keys of each sequence"
        )
    if block_table is None and cu_seqlens_k is None:
        raise ValueError(
            "seqused_k is given without block_table, expected cu_seqlens_k, the beginnings of the "
            "packed keys"
        )
    scale, window = (
        q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale,
        window_sides(window_size),
    )
    if version == _versions.HOPPER:
        result, lse = forward(
            *(q, k, v),
            out=out,
            cu_seqlens_q=cu_seqlens_q,
            cu_seqlens_k=cu_seqlens_k,
            seqused_k=seqused_k,
            max_seqlen_q=max_seqlen_q,
            max_seqlen_k=max_seqlen_k,
            page_table=block_table,
            softmax_scale=scale,
            causal=causal,
            window=window,
            softcap=softcap,
            scheduler_metadata=scheduler_metadata,
            num_splits=num_splits,
        )
        return (result, lse) if return_softmax_lse else result
    left, right = window
    result, lse = loader.namespace("_vllm_fa2_C").varlen_fwd(
        rows(q),
        rows(k),
        rows(v),
        out,
        cu_seqlens_q,
        # With a block table the op ignores this argument, but requires its shape.
        cu_seqlens_q if cu_seqlens_k is None else cu_seqlens_k,
        seqused_k,
        None,
        block_table,
        alibi_slopes,
        max_seqlen_q,
        max_seqlen_k,
        0.0,
        scale,
        False,
        causal,
        left,
        right,
        softcap,
        False,
        num_splits,
        None,
    )
    return (result, lse) if return_softmax_lse else result


def flash_attn_with_kvcache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    k: torch.Tensor | None = None,
    v: torch.Tensor | None = None,
    rotary_cos: torch.Tensor | None = None,
    rotary_sin: torch.Tensor | None = None,
    cache_seqlens: int | torch.Tensor | None = None,
    cache_batch_idx: torch.Tensor | None = None,
    cache_leftpad: torch.Tensor | None = None,
    block_table: torch.Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Sequence[int] | None = None,
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    alibi_slopes: torch.Tensor | None = None,
    num_splits: int = 0,
    return_softmax_lse: bool = False,
    *,
    out: torch.Tensor | None = None,
    scheduler_metadata: torch.Tensor | None = None,
    fa_version: int | None = None,
    **others: Any,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Attention of sequences with equal numbers of queries over their caches.

    New keys and values can be appended to the caches first.

    Args:
        q: [sequences, queries, heads, head_size], bfloat16 or float16.
        k_cache: [sequences, keys, kv_heads, head_size]; with ``block_table`` [pages, page_size,
            kv_heads, head_size].
        v_cache: as ``k_cache``.
        k: [sequences, new, kv_heads, head_size], appended to the cache after ``cache_seqlens``.
            With ``k``, version 2 needs pages whose rows are a multiple of 256 (of 128 for head
            sizes above 64, of 64 above 128); without ``k``, a multiple of 16. Version 3 supports
            pages of any size.
        v: as ``k``.
        rotary_cos: [positions, rotated / 2] of q's dtype: ``k`` and the queries are rotated by
            their positions. Requires ``k``.
        rotary_sin: as ``rotary_cos``.
        cache_seqlens: number of keys in each cache, [sequences] int32 or one number for all; None
            means that the caches are full.
        cache_batch_idx: [sequences] int32: index of each sequence's cache.
        cache_leftpad: [sequences] int32: number of keys to ignore at the beginning.
        block_table: [sequences, pages of the longest sequence] int32.
        softmax_scale: factor of the scores; None means 1 / sqrt(head_size).
        causal: whether a query sees no key after its position.
        window_size: (left, right): how many keys before and after its position a query sees; -1
            means all. None means (-1, -1).
        softcap: if above 0, scores become ``softcap * tanh(score / softcap)``.
        rotary_interleaved: whether pairs are adjacent elements; otherwise they are elements of the
            two halves.
        alibi_slopes: [heads] or [sequences, heads] float32: ``-slope * |distance|`` is added to
            each score. Version 2 only.
        num_splits: number of parts that the keys are split into; 0 lets the kernel choose.
        return_softmax_lse: whether to return the logarithm of each query's sum of exponentials as
            well.
        out: tensor to write the result to; None allocates one.
        scheduler_metadata: the result of :func:`get_scheduler_metadata` for these sequences.
            Version 3 only.
        fa_version: 2 or 3; None chooses by the device.
        others: arguments of other versions; all must be None.

    Returns:
        [sequences, queries, heads, head_size] of q's dtype; with ``return_softmax_lse`` also
        [sequences, heads, queries] float32.

    Raises:
        ImportError: the library is not installed.
        NotImplementedError: an argument needs another version.
        RuntimeError: the kernels do not support the shapes, the dtypes or the head size.
    """
    version = _versions.chosen(fa_version, q, slopes=alibi_slopes is not None)
    refuse(
        version,
        scheduler_metadata=scheduler_metadata if version != _versions.HOPPER else None,
        alibi_slopes=alibi_slopes if version == _versions.HOPPER else None,
        **others,
    )
    if isinstance(cache_seqlens, int):
        import torch  # noqa: PLC0415 - importing this module must not import torch

        cache_seqlens = q.new_full((q.shape[0],), cache_seqlens, dtype=torch.int32)
    scale, window = (
        q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale,
        window_sides(window_size),
    )
    if version == _versions.HOPPER:
        result, lse = forward(
            *(q, k_cache, v_cache),
            k_new=k,
            v_new=v,
            out=out,
            seqused_k=cache_seqlens,
            page_table=block_table,
            kv_batch_idx=cache_batch_idx,
            leftpad_k=cache_leftpad,
            rotary_cos=rotary_cos,
            rotary_sin=rotary_sin,
            rotary_interleaved=rotary_interleaved,
            softmax_scale=scale,
            causal=causal,
            window=window,
            softcap=softcap,
            scheduler_metadata=scheduler_metadata,
            num_splits=num_splits,
        )
        return (result, lse) if return_softmax_lse else result
    left, right = window
    result, lse = loader.namespace("_vllm_fa2_C").fwd_kvcache(
        rows(q),
        k_cache,
        v_cache,
        optional_rows(k),
        optional_rows(v),
        cache_seqlens,
        rotary_cos,
        rotary_sin,
        cache_batch_idx,
        cache_leftpad,
        block_table,
        alibi_slopes,
        out,
        scale,
        causal,
        left,
        right,
        softcap,
        rotary_interleaved,
        num_splits,
    )
    return (result, lse) if return_softmax_lse else result
