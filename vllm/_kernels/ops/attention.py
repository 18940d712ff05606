# SPDX-License-Identifier: Apache-2.0
"""Attention over a paged cache, on the CPU.

A cache is ``[num_blocks, num_kv_heads, block_size, head_size]``, and ``block_size`` is a multiple
of 16. Upstream splits one tensor into the two caches of a layer with ``chunk(2, dim=2)``. The data
of one head in one block is contiguous. Its layout is private to this library and the same for every
``isa``: only :func:`cpu_attn_reshape_and_cache` writes it and only
:func:`cpu_attention_with_kv_cache` reads it. Copying whole blocks preserves it. Slot ``s`` is token
``s % block_size`` of block ``s // block_size``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace

if TYPE_CHECKING:
    import torch

_C = namespace("_C")


def get_scheduler_metadata(  # noqa: PLR0917 - upstream's signature
    num_req: int,
    num_heads_q: int,
    num_heads_kv: int,
    head_dim: int,
    seq_lens: torch.Tensor,
    dtype: torch.dtype,
    query_start_loc: torch.Tensor,
    casual: bool,  # noqa: FBT001 - upstream's signature, called by position
    window_size: int,
    isa_hint: str,
    enable_kv_split: bool,  # noqa: FBT001 - upstream's signature, called by position
    dynamic_causal: torch.Tensor | None,
    kv_cache_dtype: str = "auto",
) -> torch.Tensor:
    """Plan how :func:`cpu_attention_with_kv_cache` divides a batch among threads.

    The contents of the tensor are private to this library. One tensor serves every layer with these
    heads and lengths, regardless of the layer's mask: ``casual``, ``window_size`` and
    ``dynamic_causal`` only affect the estimate of the work.

    Source: Dao et al., Flash-Decoding, 2023 (the split along the keys).

    Args:
        num_req: requests in the batch.
        num_heads_q: query heads, a multiple of ``num_heads_kv``.
        num_heads_kv: heads of the cache.
        head_dim: elements of a head.
        seq_lens: ``[num_req]``, int32: tokens of each request, including the new ones.
        dtype: dtype of the queries.
        query_start_loc: ``[num_req + 1]``, int32: where the new tokens of each request begin among
            the rows of the query.
        casual: whether a token sees only itself and earlier ones. The schema spells it like this.
        window_size: same as ``sliding_window_size`` of :func:`cpu_attention_with_kv_cache`.
        isa_hint: upstream's name of an instruction set: amx, amx_fp8, vec, vec16, neon, vxe, rvv or
            vsx.
        enable_kv_split: whether the keys of one token may be split among threads.
        dynamic_causal: ``[num_req]``, int32: overrides ``casual`` for each request; or None.
        kv_cache_dtype: ``auto``, ``fp8``, ``fp8_e4m3`` or ``fp8_e5m2``.

    Returns:
        A one-dimensional int32 tensor.
    """
    made: torch.Tensor = _C.get_scheduler_metadata(
        num_req,
        num_heads_q,
        num_heads_kv,
        head_dim,
        seq_lens,
        dtype,
        query_start_loc,
        casual,
        window_size,
        isa_hint,
        enable_kv_split,
        dynamic_causal,
        kv_cache_dtype,
    )
    return made


def cpu_attn_has_isa(isa: str) -> bool:
    """Whether this CPU and its operating system can run an instruction set.

    The names are those for which upstream's attention has kernels. This library has one layout and
    one set of kernels for every ``isa``, so the answer only describes the machine. Every CPU runs
    ``vec`` and ``vec16``. The function is not exported by ``vllm._kernels.ops``, because
    ``torch.compile`` cannot trace an op that returns no tensor.

    Source: Intel SDM, volume 1, chapter 18 (detection of AMX).

    Args:
        isa: amx, amx_fp8, vec, vec16, neon, vxe, rvv or vsx; False for any other name.
    """
    return bool(_C.cpu_attn_has_isa(isa))


def cpu_attn_reshape_and_cache(  # noqa: PLR0917 - upstream's signature
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    isa: str,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
    kv_cache_dtype: str = "auto",
) -> None:
    """Write keys and values of new tokens into their slots of the cache.

    Source: Kwon et al., PagedAttention, 2023 (arXiv:2309.06180), section 4.3.

    Args:
        key: ``[tokens, num_kv_heads, head_size]``.
        value: the same shape and dtype.
        key_cache: written to. It has the dtype of ``key``; if ``kv_cache_dtype`` is a float8
            format, it is uint8 or has that float8 dtype.
        value_cache: the same for values.
        slot_mapping: ``[tokens]``, int64: the slot of each token, -1 for none. Any other number
            outside the cache raises ``RuntimeError``, and nothing is written.
        isa: upstream's name of an instruction set; the layout is the same for all.
        k_scale: keys are divided by it before they are stored as float8.
        v_scale: the same for values.
        kv_cache_dtype: ``auto``, ``fp8`` or ``fp8_e4m3``, ``fp8_e5m2``.
    """
    _C.cpu_attn_reshape_and_cache(
        key, value, key_cache, value_cache, slot_mapping, isa, k_scale, v_scale, kv_cache_dtype
    )


def cpu_attention_with_kv_cache(  # noqa: PLR0917 - upstream's signature
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    output: torch.Tensor,
    query_start_loc: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
    causal: bool,  # noqa: FBT001 - upstream's signature, called by position
    alibi_slopes: torch.Tensor | None,
    sliding_window_size: int,
    block_table: torch.Tensor,
    softcap: float,
    scheduler_metadata: torch.Tensor,
    s_aux: torch.Tensor | None,
    dynamic_causal: torch.Tensor | None,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
    kv_cache_dtype: str = "auto",
) -> None:
    r"""Attention of new tokens to the cached tokens of their requests.

    The new tokens are the last tokens of their request in the cache. ``output = softmax(cap(scale q
    k) + slope (position(k) - position(q))) v`` over the tokens that ``q`` sees, with ``cap(s) =
    softcap tanh(s / softcap)``. A token that sees none gets zeros. All intermediate values are
    float32.

    Source: Dao et al., FlashAttention, 2022 (arXiv:2205.14135); Milakov and Gimelshein, 2018
    (arXiv:1805.02867); ALiBi from Press et al., 2021 (arXiv:2108.12409); sinks from Xiao et al.,
    2023 (arXiv:2309.17453), as a logit.

    Args:
        query: ``[tokens, num_heads, head_size]``; ``num_heads`` is a multiple of ``num_kv_heads``.
            Consecutive query heads share a key head.
        key_cache: as :func:`cpu_attn_reshape_and_cache` writes it.
        value_cache: the same.
        output: same shape and dtype as ``query``, overwritten; rows after the last request stay
            unchanged.
        query_start_loc: ``[num_req + 1]``, int32, the same as in the call that made the metadata.
        seq_lens: ``[num_req]``, int32, the same as in that call.
        scale: factor of the scores.
        causal: whether a token sees only itself and earlier ones.
        alibi_slopes: ``[num_heads]``, or None.
        sliding_window_size: how many tokens back a token sees, including itself, and without a
            causal mask also how many ahead. 0 or less means all.
        block_table: ``[num_req, max_blocks]``, int32: the blocks of each request. Entries that no
            visible token needs are not read.
        softcap: 0 for none.
        scheduler_metadata: from :func:`get_scheduler_metadata` for these heads and lengths; any
            other raises ``RuntimeError``.
        s_aux: ``[num_heads]``: one more logit in the denominator of each head's softmax; or None.
        dynamic_causal: ``[num_req]``, int32: overrides ``causal`` for each request; or None.
        k_scale: factor that keys of a float8 cache are multiplied by.
        v_scale: the same for values.
        kv_cache_dtype: the format that the cache was written with.
    """
    _C.cpu_attention_with_kv_cache(
        query,
        key_cache,
        value_cache,
        output,
        query_start_loc,
        seq_lens,
        scale,
        causal,
        alibi_slopes,
        sliding_window_size,
        block_table,
        softcap,
        scheduler_metadata,
        s_aux,
        dynamic_causal,
        k_scale,
        v_scale,
        kv_cache_dtype,
    )


def mla_decode_kvcache(
    out: torch.Tensor,
    query: torch.Tensor,
    kv_cache: torch.Tensor,
    scale: float,
    block_tables: torch.Tensor,
    seq_lens: torch.Tensor,
) -> None:
    """Multi-head latent attention of one new token per request.

    Every head attends to the same latent rows. A row of the cache is a key, and its first
    ``value_size`` elements are the value: ``out = softmax(scale q rows) rows[:, :value_size]``. A
    request without tokens gets zeros.

    Source: DeepSeek-AI, DeepSeek-V2, 2024 (arXiv:2405.04434), section 2.1.

    Args:
        out: ``[num_seqs, heads, value_size]``, overwritten; 512 in DeepSeek's models.
        query: ``[num_seqs, heads, head_size]`` with ``head_size >= value_size``; 576 in DeepSeek's
            models.
        kv_cache: ``[num_blocks, block_size, head_size]`` of the same dtype, as
            ``concat_and_cache_mla`` writes it; any block size.
        scale: factor of the scores.
        block_tables: ``[num_seqs, max_blocks]``, int32: the blocks of each request.
        seq_lens: ``[num_seqs]``, int32: tokens of each request.
    """
    _C.mla_decode_kvcache(out, query, kv_cache, scale, block_tables, seq_lens)


def merge_attn_states(
    output: torch.Tensor,
    output_lse: torch.Tensor | None,
    prefix_output: torch.Tensor,
    prefix_lse: torch.Tensor,
    suffix_output: torch.Tensor,
    suffix_lse: torch.Tensor,
    prefill_tokens_with_context: int | None,
    output_scale: torch.Tensor | None = None,
) -> None:
    """Merge attention over two disjoint sets of keys.

    The inputs are the two results and the logarithm (lse) of each softmax's denominator.

    ``output = (exp(a) prefix + exp(b) suffix) / (exp(a) + exp(b))`` and ``output_lse = log(exp(a) +
    exp(b))``. An infinite lse means that there was no key. If there was no key on either side, the
    output is zero and its lse is minus infinity.

    Source: Ye et al., FlashInfer, 2025 (arXiv:2501.01005), section 2.2.

    Args:
        output: ``[tokens, heads, head_size]``, overwritten; may be one of the inputs.
        output_lse: ``[heads, tokens]``, float32, overwritten, or None.
        prefix_output: same shape and dtype as ``output``.
        prefix_lse: ``[heads, tokens]``, float32.
        suffix_output: as the prefix.
        suffix_lse: as the prefix.
        prefill_tokens_with_context: tokens from this index on have no prefix, so their suffix is
            copied. None merges all tokens.
        output_scale: must be None; only GPUs write float8 output.
    """
    _C.merge_attn_states(
        output,
        output_lse,
        prefix_output,
        prefix_lse,
        suffix_output,
        suffix_lse,
        prefill_tokens_with_context,
        output_scale,
    )
