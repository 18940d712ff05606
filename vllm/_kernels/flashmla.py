# SPDX-License-Identifier: Apache-2.0
"""Attention over a cache of latent rows, as upstream's FlashMLA backend calls it.

Source: DeepSeek-AI, "DeepSeek-V2", 2024. Importing this module needs neither torch nor the compiled
    library. Sparse attention, float8 caches and prefill are not built; calls that need them raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vllm._kernels import build_info, loader

if TYPE_CHECKING:
    import torch

_LIBRARY = "_flashmla_C"


@dataclass
class FlashMLASchedMeta:
    """The division of a batch into parts, made by the first call that uses this object.

    It can be reused for calls with the same lengths, numbers of queries and heads, and mask.

    Attributes:
        have_initialized: whether the first call has been made.
        config: sizes and mask of the first call.
        tile_scheduler_metadata: [parts, 8] int32, made by the kernels.
        num_splits: [sequences + 1] int32: the number of parts of all earlier sequences.
    """

    @dataclass
    class Config:
        """Sizes and mask that a division is valid for.

        The sizes are: sequences, queries per sequence, heads, rows of a page, heads of the cache.
        The other fields belong to features that are not built; they are False or None.
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
    """Return an empty :class:`FlashMLASchedMeta` and None.

    The first call of :func:`flash_mla_with_kvcache` fills it. The arguments are those of upstream's
    earlier releases and are ignored.
    """
    return FlashMLASchedMeta(), None


def is_flashmla_dense_supported() -> tuple[bool, str | None]:
    """Whether :func:`flash_mla_with_kvcache` runs on the current CUDA device, and if not, why."""
    if _LIBRARY not in loader.available():
        return (
            False,
            (
                f"the library {_LIBRARY} is not installed: "
                f"{build_info.how_to_get(loader.LIBRARIES[_LIBRARY].component)}"
            ),
        )
    import torch  # noqa: PLC0415 - importing this module must not import torch

    if not torch.cuda.is_available():
        return False, "torch finds no CUDA device"
    major, minor = torch.cuda.get_device_capability()
    if (major, minor) != (9, 0):
        return False, f"FlashMLA needs compute capability 9.0, this device has {major}.{minor}"
    return True, None


def is_flashmla_sparse_supported() -> tuple[bool, str | None]:
    """Return False and the reason: sparse attention is not built."""
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
    """Attention of a few new tokens of each sequence over its paged cache.

    A row of the cache is a key, and its first elements are the value.

    Args:
        q: [sequences, queries, heads, 576], bfloat16 or float16.
        k_cache: [pages, 64, 1, 576] of q's dtype. Rows begin at multiples of 16 bytes. Rows after
            the end of a sequence may contain anything.
        block_table: [sequences, pages of the longest sequence] int32.
        cache_seqlens: [sequences] int32: rows of each sequence, including those of the queries.
        head_dim_v: 512.
        tile_scheduler_metadata: from :func:`get_mla_metadata`; the first call fills it. It can be
            reused with the same ``cache_seqlens``.
        num_splits: None.
        softmax_scale: factor of the scores; None means 1 / sqrt(576).
        causal: whether query i of n sees all rows but the last n - 1 - i.
        is_fp8_kvcache: False. This and the following None arguments belong to features that are not
            built.
        indices: None.
        attn_sink: None.
        extra_k_cache: None.
        extra_indices_in_kvcache: None.
        topk_length: None.
        extra_topk_length: None.
        out: contiguous tensor to write the result to.

    Returns:
        [sequences, queries, heads, 512] of q's dtype, and the natural logarithms of the sums of
        exponentials, [sequences, heads, queries] float32. For a query that sees no row, these are
        zeros and infinity.

    Raises:
        ImportError: the library is not installed.
        NotImplementedError: sparse attention or a float8 cache is requested.
        RuntimeError: the kernels do not support the shapes or dtypes.
        TypeError: ``tile_scheduler_metadata`` or ``num_splits`` has another type.
        ValueError: the metadata is for calls with other sizes, or ``block_table`` or
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
            f"{', '.join(named)}: sparse attention and float8 caches are not built, expected "
            "dense attention"
        )
    if not isinstance(tile_scheduler_metadata, FlashMLASchedMeta):
        raise TypeError(
            f"tile_scheduler_metadata is of type {type(tile_scheduler_metadata).__name__}, "
            "expected the first result of get_mla_metadata()"
        )
    if num_splits is not None:
        raise TypeError(
            f"num_splits is of type {type(num_splits).__name__}, expected None: "
            "tile_scheduler_metadata contains it"
        )
    if block_table is None or cache_seqlens is None:
        raise ValueError(
            "block_table or cache_seqlens is missing, expected both: they locate the rows of a "
            "sequence"
        )
    meta, config = tile_scheduler_metadata, _config(q, k_cache, causal)
    if meta.have_initialized and meta.config != config:
        raise ValueError(
            f"tile_scheduler_metadata is for {meta.config}, the arguments are for {config}; call "
            "get_mla_metadata() again"
        )
    result, lse, meta.tile_scheduler_metadata, meta.num_splits = loader.namespace(
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
