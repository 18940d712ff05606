# SPDX-License-Identifier: Apache-2.0
"""Errors of attention over a paged cache and of its schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from attention_batches import Batch, Case

if TYPE_CHECKING:
    from collections.abc import Callable

BAD: dict[str, tuple[Callable[[Batch], dict[str, Any]], str]] = {
    "foreign metadata": (
        lambda _: {"scheduler_metadata": torch.zeros(28, dtype=torch.int32)},
        "scheduler_metadata has no schedule",
    ),
    "short metadata": (
        lambda b: {"scheduler_metadata": b.metadata()[:12]},
        "scheduler_metadata has no schedule",
    ),
    "metadata of floats": (
        lambda b: {"scheduler_metadata": b.metadata().float()},
        "scheduler_metadata is of dtype Float, expected Int",
    ),
    "stale metadata": (
        lambda b: {"seq_lens": b.seq_lens - torch.tensor([0, 1, 0, 0, 0], dtype=torch.int32)},
        "scheduler_metadata was made for request 1 with 5 new tokens of 40, expected 5 of 39",
    ),
    "metadata of other heads": (
        lambda b: {"query": b.query[:, :2], "output": torch.empty(b.query.shape[0], 2, 64)},
        (
            "scheduler_metadata was made for 4 query heads, 2 key heads and head size 64, expected "
            "2, "
            "2 and 64"
        ),
    ),
    "block that is none": (
        lambda b: {"block_table": b.table * 0 + b.blocks},
        r"block_table holds \d+ for block 0 of request 0, expected 0 <=",
    ),
    "negative block": (
        lambda b: {"block_table": b.table * 0 - 1},
        "block_table holds -1 for block 0 of request 0",
    ),
    "short table": (
        lambda b: {"block_table": b.table[:, :3]},
        r"block_table has shape \[5, 3\], expected at least 9 blocks a row: request 2",
    ),
    "table of few rows": (
        lambda b: {"block_table": b.table[:2]},
        r"block_table has shape \[2, \d+\], expected \[num_reqs, max_blocks\]",
    ),
    "table of int64": (
        lambda b: {"block_table": b.table.long()},
        "block_table is of dtype Long, expected Int",
    ),
    "output too small": (
        lambda _: {"output": torch.empty(3, 4, 64)},
        r"output has shape \[3, 4, 64\], expected \[16, 4, 64\]",
    ),
    "output of other dtype": (
        lambda _: {"output": torch.empty(16, 4, 64).half()},
        "output is of dtype Half, expected Float",
    ),
    "query too short": (
        lambda b: {"query": b.query[:9], "output": torch.empty(9, 4, 64)},
        "query_start_loc ends at 16, expected at most 9, the tokens of query",
    ),
    "falling starts": (
        lambda b: {"query_start_loc": b.query_start_loc.flip(0)},
        "query_start_loc goes from 16 to",
    ),
    "negative length": (lambda b: {"seq_lens": -b.seq_lens}, "seq_lens holds -1 for request 0"),
    "cache of other dtype": (
        lambda b: {"key_cache": b.key_cache.half()},
        "key_cache is of dtype Half, expected Float, the dtype of query",
    ),
    "cache of other heads": (
        lambda _: {
            "key_cache": torch.empty(9, 3, 16, 64),
            "value_cache": torch.empty(9, 3, 16, 64),
        },
        "query has 4 heads, expected a multiple of the 3 heads of key_cache",
    ),
    "caches differ": (
        lambda b: {"value_cache": b.value_cache[1:]},
        "value_cache has shape .*: the shape of key_cache",
    ),
    "blocks of 8": (
        lambda b: {"key_cache": b.key_cache[:, :, :8]},
        "expected a block size \\(third dimension\\) that is a multiple of 16",
    ),
    "pages apart": (
        lambda _: {"key_cache": torch.empty(9, 2, 16, 70)[..., :64]},
        "key_cache has strides .* contiguous last two dimensions",
    ),
    "slopes": (
        lambda _: {"alibi_slopes": torch.zeros(3)},
        r"alibi_slopes has shape \[3\], expected \[4\]",
    ),
    "sinks": (lambda _: {"s_aux": torch.zeros(4, 1)}, r"s_aux has shape \[4, 1\], expected \[4\]"),
    "dynamic": (
        lambda _: {"dynamic_causal": torch.zeros(4, dtype=torch.int32)},
        r"dynamic_causal has shape \[4\], expected .* at least 5",
    ),
    "softcap": (lambda _: {"softcap": -1.0}, "softcap is -1.0+, expected 0"),
    "cache dtype": (
        lambda _: {"kv_cache_dtype": "int8"},
        "kv_cache_dtype is 'int8', expected auto, fp8",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(ops: Any, name: str) -> None:
    batch = Batch(ops, Case())
    make, message = BAD[name]
    arguments = batch.arguments() | make(batch)
    before = arguments["output"].clone()
    with pytest.raises(RuntimeError, match=f"^cpu_attention_with_kv_cache: .*{message}"):
        ops.cpu_attention_with_kv_cache(**arguments)
    assert torch.equal(arguments["output"].isnan(), before.isnan())


BAD_SCHEDULE: dict[str, tuple[dict[str, Any], str]] = {
    "heads": ({"num_heads_q": 5}, "num_heads_q is 5 and num_heads_kv 2"),
    "no heads": ({"num_heads_kv": 0}, "num_heads_q is 4 and num_heads_kv 0"),
    "requests": ({"num_req": -1}, "num_req is -1"),
    "too many requests": ({"num_req": 9}, "query_start_loc has shape"),
    "size": ({"head_dim": 0}, "head_dim is 0"),
    "isa": ({"isa_hint": "sse"}, "isa_hint is 'sse', expected amx"),
    "dtype": ({"dtype": torch.int32}, "dtype is Int, expected Float, BFloat16 or Half"),
    "cache dtype": ({"kv_cache_dtype": "fp7"}, "kv_cache_dtype is 'fp7'"),
    "lengths": ({"seq_lens": torch.zeros(5)}, "seq_lens is of dtype Float, expected Int"),
}


@pytest.mark.parametrize("name", BAD_SCHEDULE)
def test_bad_schedules(ops: Any, name: str) -> None:
    changed, message = BAD_SCHEDULE[name]
    batch = Batch(ops, Case())
    arguments = {
        "num_req": 5,
        "num_heads_q": 4,
        "num_heads_kv": 2,
        "head_dim": 64,
        "seq_lens": batch.seq_lens,
        "dtype": torch.float32,
        "query_start_loc": batch.query_start_loc,
        "casual": True,
        "window_size": -1,
        "isa_hint": "vec",
        "enable_kv_split": True,
        "dynamic_causal": None,
    }
    with pytest.raises(RuntimeError, match=f"^get_scheduler_metadata: .*{message}"):
        ops.get_scheduler_metadata(**(arguments | changed))
