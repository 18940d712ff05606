# SPDX-License-Identifier: Apache-2.0
"""Paged key-value caches: write tokens, gather sequences, move and convert blocks.

A cache holds ``num_blocks`` blocks of ``block_size`` tokens. The slot of a token is ``block *
block_size + offset``. Slot -1 marks padding, which is skipped. On the CPU, any other slot outside
the cache, a block number outside it, or a length that does not fit is an error, raised before
anything is written. On a GPU, whose memory the host does not read, such tokens are skipped.

``kv_cache_dtype`` is the number format of a cache. ``"auto"`` is the tokens' dtype; so are
``"float16"`` and ``"bfloat16"``, which require the tokens to have that dtype. ``"fp8"`` and
``"fp8_e4m3"`` are E4M3 in a tensor of ``uint8`` or ``float8_e4m3fn``. ``"fp8_e5m2"`` is E5M2 in
``uint8`` or ``float8_e5m2``. On gfx942, E4M3 is ``float8_e4m3fnuz`` in all caches and keys
(see :mod:`vllm._custom_ops.quant_fp8`). An fp8 cache holds ``value / scale``, rounded to nearest,
ties to even, and saturated (Micikevicius et al., FP8 Formats for Deep Learning, 2022,
arXiv:2209.05433). Scales are tensors of one ``float32``. They are not read if the cache is not fp8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace

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
    """Write tokens into a cache with chunked keys and transposed values.

    Source: Kwon et al., Efficient Memory Management for Large Language Model Serving with
        PagedAttention, 2023 (arXiv:2309.06180).

    Args:
        key: ``[tokens, heads, head_size]``; tokens beyond the length of ``slot_mapping`` are
            padding.
        value: the same shape and dtype.
        key_cache: ``[num_blocks, heads, head_size / x, block_size, x]``, written; upstream's ``x``
            is the number of elements in 16 bytes.
        value_cache: ``[num_blocks, heads, head_size, block_size]``, written; with ``interleaved_v``
            it is ``[num_blocks, heads, block_size / x, head_size, x]``, so the ``x`` tokens of a
            group are adjacent.
        slot_mapping: ``[tokens]`` or shorter, int64.
        kv_cache_dtype: see the module docstring.
        k_scale: scale of the keys, one float32.
        v_scale: scale of the values, one float32.
        interleaved_v: selects the layout of ``value_cache``.
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
    """Write tokens into a cache with one row for each head.

    Source: Kwon et al., 2023 (arXiv:2309.06180).

    Args:
        key: ``[tokens, heads, head_size]``; tokens beyond the length of ``slot_mapping`` are
            padding.
        value: the same shape and dtype.
        key_cache: ``[num_blocks, block_size, heads, head_size]``, written. Only the last dimension
            must be contiguous, so memory may hold heads first.
        value_cache: the same shape, written; its strides may differ.
        slot_mapping: ``[tokens]`` or shorter, int64.
        kv_cache_dtype: see the module docstring.
        k_scale: scale of the keys, float32: one element, or one for each head.
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
    """Write the latent rows of multi-head latent attention into a cache.

    A row is the compressed key and value of a token, followed by the rotated part of its key.

    Source: DeepSeek-AI, DeepSeek-V2, 2024 (arXiv:2405.04434), section 2.1.

    Args:
        kv_c: ``[tokens, kv_lora_rank]``; tokens beyond the length of ``slot_mapping`` are padding.
        k_pe: ``[tokens, pe_dim]``, the same dtype.
        kv_cache: ``[num_blocks, block_size, kv_lora_rank + pe_dim]``, written.
        slot_mapping: ``[tokens]`` or shorter, int64.
        kv_cache_dtype: see the module docstring. Formats with scales inside the cache
            (``"fp8_ds_mla"``) raise an error.
        scale: one float32.
        skip_scale: convert to fp8 with a scale of 1.
    """
    _C_cache_ops.concat_and_cache_mla(
        kv_c, k_pe, kv_cache, slot_mapping, kv_cache_dtype, scale, skip_scale
    )


def swap_blocks(
    src: torch.Tensor, dst: torch.Tensor, block_size_in_bytes: int, block_mapping: torch.Tensor
) -> None:
    """Copy blocks from one cache to another, or within one, in the order of ``block_mapping``.

    With a GPU, each cache may be in its memory or in CPU memory. The copies run on the current
    stream, and CPU memory that is not pinned makes them synchronous. A block must then not overlap
    its destination.

    Source: Kwon et al., 2023 (arXiv:2309.06180), section 4.5.

    Args:
        src: contiguous, any dtype; block ``i`` begins at byte ``i * block_size_in_bytes``.
        dst: contiguous, written.
        block_size_in_bytes: at least 1.
        block_mapping: ``[pairs, 2]``, int64, in CPU memory: a block of ``src`` and its destination
            in ``dst``.
    """
    _C_cache_ops.swap_blocks(src, dst, block_size_in_bytes, block_mapping)


def swap_blocks_batch(
    src_ptrs: torch.Tensor,
    dst_ptrs: torch.Tensor,
    sizes: torch.Tensor,
    is_src_access_order_any: bool = False,  # noqa: FBT001, FBT002 - upstream's signature, called by position
) -> None:
    """Copy ranges of memory given by their addresses.

    The addresses are not checked: the caller guarantees that ``sizes[i]`` bytes may be read and
    written there. No range may overlap another one's source or destination. The schema does not
    show that anything is written, so a compiler may drop the call: call it outside compiled code.

    With a GPU, the addresses may be in its memory or in the CPU's, and the copies run on the
    current stream of the current device. The three tensors are in CPU memory.

    Source: Kwon et al., 2023 (arXiv:2309.06180), section 4.5.

    Args:
        src_ptrs: ``[ranges]``, int64 addresses.
        dst_ptrs: ``[ranges]``, int64 addresses.
        sizes: ``[ranges]``, int64, in bytes; 0 copies nothing.
        is_src_access_order_any: the sources may be read in any order. Ignored.
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
    """Gather sequences from a paged cache into one tensor; an fp8 cache is dequantised.

    Source: Kwon et al., 2023 (arXiv:2309.06180).

    Args:
        src_cache: ``[num_blocks, block_size, entries...]``; the entries of a token are contiguous.
        dst: ``[at least num_tokens, entries...]``; rows that no sequence covers stay unchanged.
        block_table: ``[batch, blocks]``, int32: the blocks of each sequence. Entries that are not
            needed are not read.
        cu_seq_lens: ``[batch + 1]``, int32: sequence ``s`` fills rows ``cu_seq_lens[s]`` to
            ``cu_seq_lens[s + 1]``, truncated at ``num_tokens``.
        token_to_seq: ``[at least num_tokens]``, int32: the sequence of each row. Not read, because
            ``cu_seq_lens`` implies it.
        num_tokens: number of rows that may be written.
        kv_cache_dtype: see the module docstring.
        scale: one float32: ``dst = cache * scale`` for fp8.
        seq_starts: ``[batch]``, int32: the position at which gathering begins in each sequence. It
            need not be a multiple of the block size. None means 0.
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
    """Gather sequences from a paged cache into one tensor, without conversion.

    Source: Kwon et al., 2023 (arXiv:2309.06180).

    Args:
        src_cache: ``[num_blocks, block_size, entries...]``, any dtype; the entries of a token are
            contiguous.
        dst: ``[tokens, entries...]``, the same dtype; rows that no sequence covers stay unchanged.
        block_table: ``[at least batch_size, blocks]``, int32: the blocks of each sequence. Entries
            that are not needed are not read.
        cu_seq_lens: ``[batch_size + 1]``, int32: sequence ``s`` fills rows ``cu_seq_lens[s]`` to
            ``cu_seq_lens[s + 1]``.
        batch_size: number of sequences.
        seq_starts: ``[batch_size]``, int32: the position at which gathering begins in each
            sequence. It need not be a multiple of the block size. None means 0.
    """
    _C_cache_ops.cp_gather_cache(src_cache, dst, block_table, cu_seq_lens, batch_size, seq_starts)


def indexer_k_quant_and_cache(
    k: torch.Tensor,
    kv_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    quant_block_size: int,
    kv_cache_dtype: str,
) -> None:
    """Quantise a sparse-attention indexer's keys to E4M3 and write them to its cache. GPU only.

    Each group of ``quant_block_size`` elements has a scale. A block of the cache holds the codes of
    its tokens, one token after the other, followed by their scales in float32. Each block is
    contiguous, although the last two dimensions of ``kv_cache`` suggest rows. A scale is
    ``max(|elements|, 1e-4) / 448``. Codes are elements divided by the scale, rounded to nearest,
    ties to even.

    Source: DeepSeek-AI, DeepSeek-V3.2-Exp, 2025, section 2.1; the layout is that of DeepGEMM's
        ``fp8_paged_mqa_logits``.

    Args:
        k: ``[tokens, head_dim]``; tokens beyond the length of ``slot_mapping`` are padding.
        kv_cache: ``[num_blocks, block_size, head_dim + 4 * head_dim / quant_block_size]``, uint8,
            written.
        slot_mapping: ``[tokens]`` or shorter, int64; tokens whose slot is outside the cache are
            skipped.
        quant_block_size: elements that share a scale, a divisor of ``head_dim``.
        kv_cache_dtype: ``"ue8m0"`` rounds scales up to powers of two; ``""``, ``"auto"``, ``"fp8"``
            and ``"fp8_e4m3"`` keep them.
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
    """Gather keys and scales that :func:`indexer_k_quant_and_cache` wrote. GPU only.

    Source: DeepSeek-AI, DeepSeek-V3.2-Exp, 2025, section 2.1.

    Args:
        kv_cache: ``[num_blocks, block_size, head_dim + 4 * scales]``, uint8.
        dst_k: ``[tokens, head_dim]``, ``uint8`` or ``float8_e4m3fn``; rows that no sequence covers
            stay unchanged.
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
    """Convert a cache to fp8, ``dst = src / scale``, or from fp8, ``dst = src * scale``.

    The tensor with one-byte elements is the fp8 one.

    Source: Micikevicius et al., FP8 Formats for Deep Learning, 2022 (arXiv:2209.05433).

    Args:
        dst_cache: any shape, overwritten.
        src_cache: the same shape. One of the two is fp8 (``uint8``, or torch's dtype for the
            format), the other is floating point.
        scale: one scale for the whole tensor.
        kv_cache_dtype: ``"fp8"`` or ``"fp8_e4m3"``, ``"fp8_e5m2"``, or ``"auto"``, which follows
            the fp8 tensor's dtype and means E4M3 for ``uint8``.
    """
    _C_cache_ops.convert_fp8(dst_cache, src_cache, scale, kv_cache_dtype)
