# SPDX-License-Identifier: Apache-2.0
"""Attention over a cache of latent rows (DeepSeek-AI, "DeepSeek-V2", 2024), as upstream's FlashMLA backend calls it.

Importing this needs neither torch nor the compiled library. What this build lacks is refused where
it is asked for: sparse attention, caches of float8, prefill.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vllm import _ops, build_info

if TYPE_CHECKING:
    import torch

_LIBRARY = "_flashmla_C"


@dataclass
class FlashMLASchedMeta:
    """How a batch is cut, from the first call on that has it: for calls with the same lengths, numbers of queries and heads, and mask.

    Attributes:
        have_initialized: whether there was a call.
        config: what the first call was about.
        tile_scheduler_metadata: [parts, 8] int32, made by the kernels.
        num_splits: [sequences + 1] int32: how many pieces the sequences before this one are cut
            into.
    """

    @dataclass
    class Config:
        """Sizes that a cut is for: sequences, queries of each, heads, rows of a page, heads of the cache; and the mask.

        The others are of what this build lacks: False and None.
        """

        b: int
        s_q: int
        h_q: int
        page_block_size: int
        h_k: int
        causal: bool
        is_fp8_kvcache: bool = False
        topk: int | None = None
        extra_page_block_size: int | None = None
        extra_topk: int | None = None

    have_initialized: bool = False
    config: Config | None = None
    tile_scheduler_metadata: torch.Tensor | None = None
    num_splits: torch.Tensor | None = None


def get_mla_metadata(*_args: Any, **_kwargs: Any) -> tuple[FlashMLASchedMeta, None]:
    """An empty :class:`FlashMLASchedMeta`, which the first call of :func:`flash_mla_with_kvcache` fills, and None.

    Arguments are those of upstream's earlier releases, and of no effect.
    """
    return FlashMLASchedMeta(), None


def is_flashmla_dense_supported() -> tuple[bool, str | None]:
    """Whether :func:`flash_mla_with_kvcache` runs here, on the current CUDA device; and why not."""
    if _LIBRARY not in _ops.available():
        return (
            False,
            (
                f"the library {_LIBRARY} is not installed: "
                f"{build_info.how_to_get(_ops.LIBRARIES[_LIBRARY].component)}"
            ),
        )
    import torch  # noqa: PLC0415 - only here does anything need it

    if not torch.cuda.is_available():
        return False, "torch finds no CUDA device"
    major, minor = torch.cuda.get_device_capability()
    if (major, minor) != (9, 0):
        return False, f"FlashMLA needs compute capability 9.0, this device has {major}.{minor}"
    return True, None


def is_flashmla_sparse_supported() -> tuple[bool, str | None]:
    """False, and that sparse attention is not built."""
    return False, "sparse attention is not built"


def _config(q: torch.Tensor, k_cache: torch.Tensor, causal: bool) -> FlashMLASchedMeta.Config:
    return FlashMLASchedMeta.Config(
        q.shape[0], q.shape[1], q.shape[2], k_cache.shape[1], k_cache.shape[2], causal
    )


def flash_mla_with_kvcache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    block_table: torch.Tensor | None,
    cache_seqlens: torch.Tensor | None,
    head_dim_v: int,
    tile_scheduler_metadata: FlashMLASchedMeta,
    num_splits: None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    is_fp8_kvcache: bool = False,
    indices: torch.Tensor | None = None,
    attn_sink: torch.Tensor | None = None,
    extra_k_cache: torch.Tensor | None = None,
    extra_indices_in_kvcache: torch.Tensor | None = None,
    topk_length: torch.Tensor | None = None,
    extra_topk_length: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of a few new tokens of each sequence over its paged cache, whose rows are keys and, in front, values.

    Args:
        q: [sequences, queries, heads, 576], bfloat16 or float16.
        k_cache: [pages, 64, 1, 576] of q's dtype; rows begin at multiples of 16 bytes, and those
            behind the end of a sequence may hold anything.
        block_table: [sequences, pages of the longest one] int32.
        cache_seqlens: [sequences] int32: rows of each sequence, those of the queries included.
        head_dim_v: 512.
        tile_scheduler_metadata: from :func:`get_mla_metadata`; filled by the first call. It serves
            others with the same ``cache_seqlens``.
        num_splits: None.
        softmax_scale: of the scores; None means 1 / sqrt(576).
        causal: whether query i of n sees all rows but the last n - 1 - i.
        is_fp8_kvcache: False, as are the next ones None: not built.
        indices: None.
        attn_sink: None.
        extra_k_cache: None.
        extra_indices_in_kvcache: None.
        topk_length: None.
        extra_topk_length: None.
        out: where to write the result, contiguous.

    Returns:
        [sequences, queries, heads, 512] of q's dtype, and the natural logarithms of the sums of
        exponentials, [sequences, heads, queries] float32. A query that sees no row gives zeros and
        infinity.

    Raises:
        ImportError: the library is not installed.
        NotImplementedError: sparse attention or a cache of float8.
        RuntimeError: shapes or dtypes that the kernels do not take.
        TypeError: ``tile_scheduler_metadata`` or ``num_splits`` is something else.
        ValueError: the metadata is that of calls of other sizes, or ``block_table`` or
            ``cache_seqlens`` is missing.
    """
    lacking = {
        "is_fp8_kvcache": is_fp8_kvcache or None,
        "indices": indices,
        "attn_sink": attn_sink,
        "extra_k_cache": extra_k_cache,
        "extra_indices_in_kvcache": extra_indices_in_kvcache,
        "topk_length": topk_length,
        "extra_topk_length": extra_topk_length,
    }
    named = [name for name, value in lacking.items() if value is not None]
    if named:
        raise NotImplementedError(
            f"{', '.join(named)}: sparse attention and caches of float8 are not built, expected "
            "dense attention"
        )
    if not isinstance(tile_scheduler_metadata, FlashMLASchedMeta):
        raise TypeError(
            f"tile_scheduler_metadata is of type {type(tile_scheduler_metadata).__name__}, "
            "expected what get_mla_metadata() returns first"
        )
    if num_splits is not None:
        raise TypeError(
            f"num_splits is of type {type(num_splits).__name__}, expected None: it is in "
            "tile_scheduler_metadata"
        )
    if block_table is None or cache_seqlens is None:
        raise ValueError(
            "block_table or cache_seqlens is missing, expected both: they say where the rows of a "
            "sequence are"
        )
    meta, config = tile_scheduler_metadata, _config(q, k_cache, causal)
    if meta.have_initialized and meta.config != config:
        raise ValueError(
            f"tile_scheduler_metadata is for {meta.config}, the arguments are for {config}; call "
            "get_mla_metadata() again"
        )
    result, lse, meta.tile_scheduler_metadata, meta.num_splits = _ops.namespace(
        _LIBRARY
    ).dense_decode_fwd(
        q,
        k_cache,
        head_dim_v,
        cache_seqlens,
        block_table,
        q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale,
        causal,
        meta.tile_scheduler_metadata,
        meta.num_splits,
        out,
    )
    meta.have_initialized, meta.config = True, config
    return result, lse
