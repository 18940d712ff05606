# SPDX-License-Identifier: Apache-2.0
"""Paged key-value caches: writing tokens into them, gathering sequences from them, moving and converting blocks.

A cache holds ``num_blocks`` blocks of ``block_size`` tokens. A token's place is its slot, ``block *
block_size + offset``; slot -1 stands for padding, which is skipped. On the CPU other slots outside
the cache, block numbers outside it and lengths that do not fit are errors, found before anything is
written; on a GPU, whose memory the host does not read, such tokens are left out.

``kv_cache_dtype`` says how a cache holds numbers. ``"auto"`` (and ``"float16"``, ``"bfloat16"``,
which demand that type): in the tokens' dtype. ``"fp8"`` and ``"fp8_e4m3"``: as E4M3 in a tensor of
``uint8`` or ``float8_e4m3fn``. ``"fp8_e5m2"``: as E5M2 in ``uint8`` or ``float8_e5m2``. An fp8
cache holds ``value / scale``, rounded to nearest, ties to even, and saturated (Micikevicius et al.,
FP8 Formats for Deep Learning, 2022, arXiv:2209.05433). Scales are tensors of one ``float32``; they
are not read when the cache is not fp8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._ops import namespace

if TYPE_CHECKING:
    import torch

_C_cache_ops = namespace("_C_cache_ops")


def reshape_and_cache(  # noqa: PLR0917 - upstream's signature
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    kv_cache_dtype: str,
    k_scale: torch.Tensor,
    v_scale: torch.Tensor,
    interleaved_v: bool = False,  # noqa: FBT001, FBT002 - upstream's signature, called by position
) -> None:
    """Write tokens into a cache that holds keys in chunks and values transposed.

    Source: Kwon et al., Efficient Memory Management for Large Language Model Serving with
        PagedAttention, 2023 (arXiv:2309.06180).

    Args:
        key: ``[tokens, heads, head_size]``; tokens beyond those of ``slot_mapping`` are padding.
        value: the same shape and dtype.
        key_cache: ``[num_blocks, heads, head_size / x, block_size, x]``, written; upstream has
            ``x`` elements in 16 bytes.
        value_cache: ``[num_blocks, heads, head_size, block_size]``, written; with ``interleaved_v``
            ``[num_blocks, heads, block_size / x, head_size, x]``: the ``x`` tokens of a group side
            by side.
        slot_mapping: ``[tokens]`` or shorter, int64.
        kv_cache_dtype: see the module.
        k_scale: the keys' scale, one float32.
        v_scale: the values' scale, one float32.
        interleaved_v: which layout ``value_cache`` has.
    """
    _C_cache_ops.reshape_and_cache(
        key,
        value,
        key_cache,
        value_cache,
        slot_mapping,
        kv_cache_dtype,
        k_scale,
        v_scale,
        interleaved_v,
    )


def reshape_and_cache_flash(
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    kv_cache_dtype: str,
    k_scale: torch.Tensor,
    v_scale: torch.Tensor,
) -> None:
    """Write tokens into a cache of rows, one a head.

    Source: Kwon et al., 2023 (arXiv:2309.06180).

    Args:
        key: ``[tokens, heads, head_size]``; tokens beyond those of ``slot_mapping`` are padding.
        value: the same shape and dtype.
        key_cache: ``[num_blocks, block_size, heads, head_size]`` written; any strides but the last:
            memory may hold heads first.
        value_cache: the same shape, written; its strides may differ.
        slot_mapping: ``[tokens]`` or shorter, int64.
        kv_cache_dtype: see the module.
        k_scale: the keys' scales, float32, one or one a head.
        v_scale: the same for the values.
    """
    _C_cache_ops.reshape_and_cache_flash(
        key, value, key_cache, value_cache, slot_mapping, kv_cache_dtype, k_scale, v_scale
    )


def concat_and_cache_mla(
    kv_c: torch.Tensor,
    k_pe: torch.Tensor,
    kv_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    kv_cache_dtype: str,
    scale: torch.Tensor,
    skip_scale: bool = False,  # noqa: FBT001, FBT002 - upstream's signature, called by position
) -> None:
    """Write what multi-head latent attention keeps of a token: the compressed key and value, then the key's rotated part.

    Source: DeepSeek-AI, DeepSeek-V2, 2024 (arXiv:2405.04434), section 2.1.

    Args:
        kv_c: ``[tokens, kv_lora_rank]``; tokens beyond those of ``slot_mapping`` are padding.
        k_pe: ``[tokens, pe_dim]``, the same dtype.
        kv_cache: ``[num_blocks, block_size, kv_lora_rank + pe_dim]``, written.
        slot_mapping: ``[tokens]`` or shorter, int64.
        kv_cache_dtype: see the module. Formats with scales inside the cache (``"fp8_ds_mla"``) are
            an error.
        scale: one float32.
        skip_scale: convert to fp8 as with a scale of 1.
    """
    _C_cache_ops.concat_and_cache_mla(
        kv_c, k_pe, kv_cache, slot_mapping, kv_cache_dtype, scale, skip_scale
    )


def swap_blocks(
    src: torch.Tensor, dst: torch.Tensor, block_size_in_bytes: int, block_mapping: torch.Tensor
) -> None:
    """Copy blocks from one cache to another, or within one, in the order of ``block_mapping``.

    With a GPU either cache may lie there or in CPU memory, and the copies take place on the current
    stream: memory of the CPU that is not pinned makes them wait. A block must not overlap the one
    that it is copied to then.

    Source: Kwon et al., 2023 (arXiv:2309.06180), section 4.5.

    Args:
        src: contiguous, any dtype; block ``i`` begins at byte ``i * block_size_in_bytes``.
        dst: contiguous, written.
        block_size_in_bytes: at least 1.
        block_mapping: ``[pairs, 2]``, int64, in CPU memory: a block of ``src``, then the block of
            ``dst`` that it is copied to.
    """
    _C_cache_ops.swap_blocks(src, dst, block_size_in_bytes, block_mapping)


def swap_blocks_batch(
    src_ptrs: torch.Tensor,
    dst_ptrs: torch.Tensor,
    sizes: torch.Tensor,
    is_src_access_order_any: bool = False,  # noqa: FBT001, FBT002 - upstream's signature, called by position
) -> None:
    """Copy pieces of memory that are given by their addresses.

    The addresses are trusted: only the caller can know that ``sizes[i]`` bytes may be read and
    written there. No piece may overlap what another copies. The schema does not say that anything
    is written, so a compiler may leave the call out; call it outside compiled code.

    With a GPU the addresses may be of its memory or the CPU's, and the copies take place on the
    current stream of the current device; the tensors themselves lie in CPU memory.

    Source: Kwon et al., 2023 (arXiv:2309.06180), section 4.5.

    Args:
        src_ptrs: ``[pieces]``, int64 addresses.
        dst_ptrs: ``[pieces]``, int64 addresses.
        sizes: ``[pieces]``, int64, in bytes; 0 copies nothing.
        is_src_access_order_any: the sources may be read in any order; no use is made of it.
    """
    _C_cache_ops.swap_blocks_batch(src_ptrs, dst_ptrs, sizes, is_src_access_order_any)


def gather_and_maybe_dequant_cache(  # noqa: PLR0917 - upstream's signature
    src_cache: torch.Tensor,
    dst: torch.Tensor,
    block_table: torch.Tensor,
    cu_seq_lens: torch.Tensor,
    token_to_seq: torch.Tensor,
    num_tokens: int,
    kv_cache_dtype: str,
    scale: torch.Tensor,
    seq_starts: torch.Tensor | None,
) -> None:
    """Gather sequences from a paged cache into one tensor, converting from fp8 where the cache holds that.

    Source: Kwon et al., 2023 (arXiv:2309.06180).

    Args:
        src_cache: ``[num_blocks, block_size, entries...]``, the entries of a token side by side.
        dst: ``[at least num_tokens, entries...]``; rows that no sequence covers stay.
        block_table: ``[batch, blocks]``, int32: the blocks of each sequence; only those that are
            needed are looked at.
        cu_seq_lens: ``[batch + 1]``, int32: sequence ``s`` fills rows ``cu_seq_lens[s]`` to
            ``cu_seq_lens[s + 1]``, cut at ``num_tokens``.
        token_to_seq: ``[at least num_tokens]``, int32: the sequence of each row. ``cu_seq_lens``
            says it already; not read.
        num_tokens: rows that may be written.
        kv_cache_dtype: see the module.
        scale: one float32: ``dst = cache * scale`` for fp8.
        seq_starts: ``[batch]``, int32: the position that each sequence is gathered from, any token
            of a block; None for 0.
    """
    _C_cache_ops.gather_and_maybe_dequant_cache(
        src_cache,
        dst,
        block_table,
        cu_seq_lens,
        token_to_seq,
        num_tokens,
        kv_cache_dtype,
        scale,
        seq_starts,
    )


def cp_gather_cache(
    src_cache: torch.Tensor,
    dst: torch.Tensor,
    block_table: torch.Tensor,
    cu_seq_lens: torch.Tensor,
    batch_size: int,
    seq_starts: torch.Tensor | None,
) -> None:
    """Gather sequences from a paged cache into one tensor as they are.

    Source: Kwon et al., 2023 (arXiv:2309.06180).

    Args:
        src_cache: ``[num_blocks, block_size, entries...]``, any dtype, the entries of a token side
            by side.
        dst: ``[tokens, entries...]``, the same dtype; rows that no sequence covers stay.
        block_table: ``[at least batch_size, blocks]``, int32: the blocks of each sequence; only
            those that are needed are looked at.
        cu_seq_lens: ``[batch_size + 1]``, int32: sequence ``s`` fills rows ``cu_seq_lens[s]`` to
            ``cu_seq_lens[s + 1]``.
        batch_size: sequences.
        seq_starts: ``[batch_size]``, int32: the position that each sequence is gathered from, any
            token of a block; None for 0.
    """
    _C_cache_ops.cp_gather_cache(src_cache, dst, block_table, cu_seq_lens, batch_size, seq_starts)


def indexer_k_quant_and_cache(
    k: torch.Tensor,
    kv_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    quant_block_size: int,
    kv_cache_dtype: str,
) -> None:
    """Write the keys of a sparse attention's indexer into its cache, as E4M3 with a scale for each ``quant_block_size`` elements. GPU only.

    A block of the cache holds the codes of its tokens, one token after the other, and then their
    scales, float32: each block is one piece of memory, whatever the last two dimensions of
    ``kv_cache`` suggest. A scale is ``max(|elements|, 1e-4) / 448``; codes are elements divided by
    it, rounded to nearest, ties to even.

    Source: DeepSeek-AI, DeepSeek-V3.2-Exp, 2025, section 2.1; the layout is that of DeepGEMM's
        ``fp8_paged_mqa_logits``.

    Args:
        k: ``[tokens, head_dim]``; tokens beyond those of ``slot_mapping`` are padding.
        kv_cache: ``[num_blocks, block_size, head_dim + 4 * head_dim / quant_block_size]``, uint8,
            written.
        slot_mapping: ``[tokens]`` or shorter, int64; tokens whose slot is not one of the cache are
            left out.
        quant_block_size: elements that share a scale, a divisor of ``head_dim``.
        kv_cache_dtype: ``"ue8m0"`` to round scales up to powers of two; ``""``, ``"auto"``,
            ``"fp8"`` or ``"fp8_e4m3"`` to keep them.
    """
    _C_cache_ops.indexer_k_quant_and_cache(
        k, kv_cache, slot_mapping, quant_block_size, kv_cache_dtype
    )


def cp_gather_indexer_k_quant_cache(
    kv_cache: torch.Tensor,
    dst_k: torch.Tensor,
    dst_scale: torch.Tensor,
    block_table: torch.Tensor,
    cu_seq_lens: torch.Tensor,
) -> None:
    """Gather the keys and scales of sequences from the cache that :func:`indexer_k_quant_and_cache` writes. GPU only.

    Source: DeepSeek-AI, DeepSeek-V3.2-Exp, 2025, section 2.1.

    Args:
        kv_cache: ``[num_blocks, block_size, head_dim + 4 * scales]``, uint8.
        dst_k: ``[tokens, head_dim]``, ``uint8`` or ``float8_e4m3fn``; rows that no sequence covers
            stay.
        dst_scale: ``[tokens, scales]`` float32, or ``[tokens, 4 * scales]`` uint8: its bytes.
        block_table: ``[batch, blocks]``, int32: the blocks of each sequence.
        cu_seq_lens: ``[batch + 1]``, int32: sequence ``s`` fills rows ``cu_seq_lens[s]`` to
            ``cu_seq_lens[s + 1]``.
    """
    _C_cache_ops.cp_gather_indexer_k_quant_cache(
        kv_cache, dst_k, dst_scale, block_table, cu_seq_lens
    )


def convert_fp8(
    dst_cache: torch.Tensor, src_cache: torch.Tensor, scale: float, kv_cache_dtype: str
) -> None:
    """Convert a cache to fp8, ``dst = src / scale``, or from fp8, ``dst = src * scale``, whichever side has elements of one byte.

    Source: Micikevicius et al., FP8 Formats for Deep Learning, 2022 (arXiv:2209.05433).

    Args:
        dst_cache: any shape, overwritten.
        src_cache: the same shape. One of the two is fp8 (``uint8``, or torch's type of the format),
            the other floating point.
        scale: of the whole tensor.
        kv_cache_dtype: ``"fp8"`` or ``"fp8_e4m3"``, ``"fp8_e5m2"``, or ``"auto"``: by the fp8
            tensor's dtype, E4M3 for ``uint8``.
    """
    _C_cache_ops.convert_fp8(dst_cache, src_cache, scale, kv_cache_dtype)
