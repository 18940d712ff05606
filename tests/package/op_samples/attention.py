# SPDX-License-Identifier: Apache-2.0
"""Sample calls of attention; tests/package/test_custom_ops.py describes the format."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

#: Number of new tokens and of all tokens, for each request.
_NEW, _ALL = (1, 3), (20, 3)
_STARTS = torch.tensor([0, 1, 4], dtype=torch.int32)
_LENGTHS = torch.tensor(_ALL, dtype=torch.int32)
_TABLE = torch.tensor([[2, 0], [1, 9]], dtype=torch.int32)
#: Slots of the tokens of the first request, then of the second.
_SLOTS = torch.tensor([*range(32, 48), *range(4), *range(16, 19)])


def _schedule() -> tuple[Any, ...]:
    return 2, 4, 2, 8, _LENGTHS, torch.float32, _STARTS, True, -1, "vec", False, None


def _schedule_reference(*_args: object) -> dict[str, torch.Tensor]:
    """The schedule.

    The batch has a mark and sizes. Each request has its new and all tokens, the tokens of a tile,
    and the number of keys after which they are split (never).
    """
    return {
        "return": torch.tensor(
            [0x41545431, 2, 4, 2, 8, 0, 0, 0, 1, 20, 1, 2**31 - 1, 3, 3, 3, 2**31 - 1],
            dtype=torch.int32,
        )
    }


def _cached(key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The caches with these tokens, in the layout of csrc/attention/kv_cache.h.

    Blocks have 16 tokens and heads 8 elements.
    """
    keys, values = torch.zeros(3 * 16, 2, 8), torch.zeros(3 * 16, 2, 8)
    keys[_SLOTS], values[_SLOTS] = key, value
    keys = keys.view(3, 16, 2, 8).permute(0, 2, 3, 1).reshape(3, 2, 16, 8)
    return keys, values.view(3, 16, 2, 8).transpose(1, 2).contiguous()


def _cache() -> tuple[Any, ...]:
    key, value = torch.randn(23, 2, 8), torch.randn(23, 2, 8)
    return key, value, torch.zeros(3, 2, 16, 8), torch.zeros(3, 2, 16, 8), _SLOTS, "vec"


def _cache_reference(
    key: torch.Tensor, value: torch.Tensor, *_rest: object
) -> dict[int, torch.Tensor]:
    keys, values = _cached(key, value)
    return {2: keys, 3: values}


_KEY, _VALUE = torch.randn(23, 2, 8), torch.randn(23, 2, 8)


def _attention() -> tuple[Any, ...]:
    metadata = torch.ops._C.get_scheduler_metadata(*_schedule())
    query = torch.randn(4, 4, 8)
    return (
        query,
        *_cached(_KEY, _VALUE),
        torch.zeros_like(query),
        _STARTS,
        _LENGTHS,
        0.5,
        True,
        None,
        -1,
        _TABLE,
        0.0,
        metadata,
        None,
        None,
    )


def _attention_reference(query: torch.Tensor, *_rest: object) -> dict[int, torch.Tensor]:
    results = []
    for q, k, v in zip(query.split(_NEW), _KEY.split(_ALL), _VALUE.split(_ALL), strict=True):
        mask = torch.ones(len(q), len(k), dtype=torch.bool).tril(len(k) - len(q))
        by_head = [t.transpose(0, 1)[None] for t in (q, k, v)]
        results.append(
            functional.scaled_dot_product_attention(*by_head, mask, scale=0.5, enable_gqa=True)[
                0
            ].transpose(0, 1)
        )
    return {3: torch.cat(results)}


def _merge() -> tuple[Any, ...]:
    return (
        torch.empty(5, 2, 6),
        torch.empty(2, 5),
        torch.randn(5, 2, 6),
        torch.randn(2, 5),
        torch.randn(5, 2, 6),
        torch.randn(2, 5),
        None,
    )


def _merge_reference(*args: Any) -> dict[int, torch.Tensor]:
    _, _, prefix, a, suffix, b, _ = args
    lse = torch.logaddexp(a, b)
    return {
        0: prefix * (a - lse).exp().t()[..., None] + suffix * (b - lse).exp().t()[..., None],
        1: lse,
    }


def _latent() -> tuple[Any, ...]:
    tables = torch.tensor([[1, 3], [0, 0]], dtype=torch.int32)
    return (
        torch.empty(2, 3, 4),
        torch.randn(2, 3, 6),
        torch.randn(4, 5, 6),
        0.4,
        tables,
        torch.tensor([7, 5], dtype=torch.int32),
    )


def _latent_reference(*args: Any) -> dict[int, torch.Tensor]:
    _, query, cache, scale, tables, lengths = args
    rows = [
        cache[table.long()].flatten(0, 1)[:length]
        for table, length in zip(tables, lengths.tolist(), strict=True)
    ]
    return {
        0: torch.stack(
            [
                (q @ row.t() * scale).softmax(-1) @ row[:, :4]
                for q, row in zip(query, rows, strict=True)
            ]
        )
    }


SAMPLES = {
    "get_scheduler_metadata": (_schedule, _schedule_reference),
    "cpu_attn_reshape_and_cache": (_cache, _cache_reference),
    "cpu_attention_with_kv_cache": (_attention, _attention_reference),
    "merge_attn_states": (_merge, _merge_reference),
    "mla_decode_kvcache": (_latent, _latent_reference),
}
