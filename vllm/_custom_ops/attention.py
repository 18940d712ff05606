# SPDX-License-Identifier: Apache-2.0
"""Attention over a paged cache, on the CPU.

A cache is ``[num_blocks, num_kv_heads, block_size, head_size]`` with a block size that 16 divides;
upstream cuts both caches of a layer from one tensor with ``chunk(2, dim=2)``. What a block holds of
a head lies in one piece of memory, and how it is arranged there is this library's own business, the
same for every ``isa``: only :func:`cpu_attn_reshape_and_cache` writes it, only
:func:`cpu_attention_with_kv_cache` reads it, and copying whole blocks keeps it. Slot ``s`` is token
``s % block_size`` of block ``s // block_size``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._ops import namespace

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
    """How :func:`cpu_attention_with_kv_cache` cuts the work of a batch among threads.

    The tensor's contents are this library's own. It serves every layer with these heads and
    lengths, whatever its mask: ``casual``, ``window_size`` and ``dynamic_causal`` only tell how
    much work there is.

    Source: Dao et al., Flash-Decoding, 2023 (the cut along the keys).

    Args:
        num_req: requests in the batch.
        num_heads_q: query heads, a multiple of ``num_heads_kv``.
        num_heads_kv: heads of the cache.
        head_dim: elements of a head.
        seq_lens: ``[num_req]``, int32: tokens of each request, the new ones included.
        dtype: of the queries.
        query_start_loc: ``[num_req + 1]``, int32: where the new tokens of each request begin among
            the rows of the query.
        casual: whether a token sees only itself and earlier ones; the schema's spelling.
        window_size: as ``sliding_window_size`` of :func:`cpu_attention_with_kv_cache`.
        isa_hint: upstream's name of an instruction set: amx, amx_fp8, vec, vec16, neon, vxe, rvv or
            vsx.
        enable_kv_split: whether the keys of one token may be cut among threads.
        dynamic_causal: ``[num_req]``, int32: overrides ``casual`` by request, or None.
        kv_cache_dtype: ``auto``, ``fp8``, ``fp8_e4m3`` or ``fp8_e5m2``.

    Returns:
        An int32 tensor of one dimension.
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
    """Whether this CPU and its operating system run an instruction set that upstream's attention has a kernel for.

    Here one layout and one set of kernels serve every ``isa``; the answer is about the machine.
    ``vec`` and ``vec16`` are what every CPU runs. Not among the names of ``vllm._custom_ops``:
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
        key_cache: written to; of the dtype of ``key``, or of uint8 (or the float8 dtype itself)
            when ``kv_cache_dtype`` says float8.
        value_cache: the same for values.
        slot_mapping: ``[tokens]``, int64: the slot of each token, -1 for none. Any other number
            outside the cache is a ``RuntimeError``, and nothing is written then.
        isa: upstream's name of an instruction set; all have one layout here.
        k_scale: a float8 cache holds keys divided by it.
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
    r"""Attention of new tokens to the cached tokens of their requests, which the new ones are the last of.

    ``output = softmax(cap(scale q k) + slope (position(k) - position(q))) v`` over the tokens that
    ``q`` sees, with ``cap(s) = softcap tanh(s / softcap)``; a token that sees none gets zeros. In
    float32 from the tensors' dtype to the result.

    Source: Dao et al., FlashAttention, 2022 (arXiv:2205.14135); Milakov and Gimelshein, 2018
    (arXiv:1805.02867); ALiBi from Press et al., 2021 (arXiv:2108.12409); sinks from Xiao et al.,
    2023 (arXiv:2309.17453), as a logit.

    Args:
        query: ``[tokens, num_heads, head_size]``; any number of heads that ``num_kv_heads``
            divides, which share key heads in order.
        key_cache: as :func:`cpu_attn_reshape_and_cache` left it.
        value_cache: the same.
        output: the shape and dtype of ``query``, overwritten; rows behind the last request stay.
        query_start_loc: ``[num_req + 1]``, int32, as the metadata was made with.
        seq_lens: ``[num_req]``, int32, the same.
        scale: of the products.
        causal: whether a token sees only itself and earlier ones.
        alibi_slopes: ``[num_heads]``, or None.
        sliding_window_size: a token sees so many tokens back, itself included, and where it is not
            causal as many ahead; 0 or less: all.
        block_table: ``[num_req, max_blocks]``, int32: the blocks of each request. Entries that no
            visible token needs are not read.
        softcap: 0 for none.
        scheduler_metadata: of :func:`get_scheduler_metadata` for these heads and lengths; any other
            is a ``RuntimeError``.
        s_aux: ``[num_heads]``: a logit for each head that joins the denominator of its softmax, or
            None.
        dynamic_causal: ``[num_req]``, int32: overrides ``causal`` by request, or None.
        k_scale: what keys of a float8 cache are multiplied by.
        v_scale: the same for values.
        kv_cache_dtype: as the cache was written with.
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
    """Multi-head latent attention of one new token a request: every head attends to the same latent rows.

    A row of the cache is a key, and its first ``value_size`` elements are the value: ``out =
    softmax(scale q rows) rows[:, :value_size]``. A request without tokens gets zeros.

    Source: DeepSeek-AI, DeepSeek-V2, 2024 (arXiv:2405.04434), section 2.1.

    Args:
        out: ``[num_seqs, heads, value_size]``, overwritten; 512 in DeepSeek's models.
        query: ``[num_seqs, heads, head_size]`` with ``head_size >= value_size``; 576 in DeepSeek's
            models.
        kv_cache: ``[num_blocks, block_size, head_size]`` of the same dtype, as
            ``concat_and_cache_mla`` writes it; any block size.
        scale: of the products.
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
    """Merge attention over two disjoint sets of keys, given each result and the logarithm of its softmax's denominator.

    ``output = (exp(a) prefix + exp(b) suffix) / (exp(a) + exp(b))`` and ``output_lse = log(exp(a) +
    exp(b))``. An infinite lse says that there was no key; without keys on both sides the output is
    zero and its lse minus infinity.

    Source: Ye et al., FlashInfer, 2025 (arXiv:2501.01005), section 2.2.

    Args:
        output: ``[tokens, heads, head_size]``, overwritten; may be one of the inputs.
        output_lse: ``[heads, tokens]``, float32, overwritten, or None.
        prefix_output: the shape and dtype of ``output``.
        prefix_lse: ``[heads, tokens]``, float32.
        suffix_output: as the prefix.
        suffix_lse: as the prefix.
        prefill_tokens_with_context: tokens from this one on have no prefix: their suffix is copied.
            None: all are merged.
        output_scale: must be None: float8 output is a GPU's.
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
