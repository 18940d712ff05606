# SPDX-License-Identifier: Apache-2.0
"""Attention of single tokens over a paged cache, in ROCm's library alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace

if TYPE_CHECKING:
    import torch

_C = namespace("_rocm_C")


def paged_attention_rocm(  # noqa: PLR0917 - upstream's signature
    out: torch.Tensor,
    exp_sum: torch.Tensor,
    max_logits: torch.Tensor,
    tmp_out: torch.Tensor,
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    num_kv_heads: int,
    scale: float,
    block_tables: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor | None,
    block_size: int,
    max_seq_len: int,
    alibi_slopes: torch.Tensor | None,
    kv_cache_dtype: str,
    k_scale: torch.Tensor,
    v_scale: torch.Tensor,
    fp8_out_scale: torch.Tensor | None = None,
    mfma_type: str = "f16",
    use_interleaved_v_cache: bool = False,  # noqa: FBT001, FBT002 - upstream's signature
) -> None:
    """Attend with the last token of each sequence to the keys and values of a paged cache.

    The keys are cut into partitions of 256 tokens, which are attended to at the same time; a second
    pass merges what they gave. ``exp_sum``, ``max_logits`` and ``tmp_out`` are memory for it.

    Codes of eight bits are ``float8_e4m3fn`` or ``float8_e4m3fnuz``, as the dtype of their tensor
    says. ``uint8`` means ``float8_e4m3fnuz`` on gfx942, whose instructions have that format, and
    ``float8_e4m3fn`` on every other architecture.

    Source: Dao et al., Flash-Decoding, 2023.

    Args:
        out: ``[tokens, heads, head_size]``, the dtype of ``query``, overwritten; with
            ``fp8_out_scale``, ``uint8`` or float8. Zero for a sequence without keys.
        exp_sum: ``[sequences, heads, partitions]``, float32, overwritten; ``max_seq_len`` has
            ``partitions`` partitions.
        max_logits: as ``exp_sum``.
        tmp_out: ``[sequences, heads, partitions, head_size]``, the dtype of ``query``, overwritten.
        query: ``[tokens, heads, head_size]``, ``bfloat16`` or ``float16``; ``head_size`` is 64 or
            128.
        key_cache: ``[num_blocks, num_kv_heads, head_size / x, block_size, x]``, where x elements
            are 16 bytes; the dtype of ``query``, or ``uint8`` or float8.
        value_cache: ``[num_blocks, num_kv_heads, head_size, block_size]``, the dtype of
            ``key_cache``.
        num_kv_heads: a divisor of ``heads``.
        scale: of the scores.
        block_tables: ``[sequences, blocks of a sequence]``, int32. Tokens whose block is not in the
            cache are left out.
        seq_lens: ``[sequences]``, int32: keys of each sequence, its query's among them. More than
            ``max_seq_len`` are left out.
        query_start_loc: ``[sequences + 1]``, int32: where the tokens of each sequence begin in
            ``query``, or None: there is one of each. Sequences of any other number of tokens than
            one are skipped.
        block_size: tokens of a block, a multiple of 16.
        max_seq_len: at least as large as every number in ``seq_lens``.
        alibi_slopes: ``[heads]``, float32: slope times the distance from the query, which is
            negative, is added to a score. Or None.
        kv_cache_dtype: ``auto``, ``float16`` or ``bfloat16``; ``fp8`` or ``fp8_e4m3``.
        k_scale: float32, one element: a key is its code times this. Only for float8.
        v_scale: as ``k_scale``.
        fp8_out_scale: float32, one element: a code of ``out`` is the result divided by this. Or
            None.
        mfma_type: ``f16`` or ``fp8``, which give the same result.
        use_interleaved_v_cache: ``value_cache`` has ``[block_size / x, head_size, x]`` in the
            memory of each block and head. It may have this shape, too.
    """
    _C.paged_attention(
        out,
        exp_sum,
        max_logits,
        tmp_out,
        query,
        key_cache,
        value_cache,
        num_kv_heads,
        scale,
        block_tables,
        seq_lens,
        query_start_loc,
        block_size,
        max_seq_len,
        alibi_slopes,
        kv_cache_dtype,
        k_scale,
        v_scale,
        fp8_out_scale,
        mfma_type,
        use_interleaved_v_cache,
    )
