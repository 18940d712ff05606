# SPDX-License-Identifier: Apache-2.0
"""Schedules of FlashAttention 3 that are computed ahead.

Needs a GPU and the libraries: `make gpu-tests`.
"""

from __future__ import annotations

import pytest
import torch
from flash_reference import (  # noqa: F401 - fixtures
    HOPPER,
    Mask,
    attend,
    half_dtype,
    installed_version,
    mask,
    of_sequence,
    paged,
    starts,
)

from vllm._kernels import flash_attn

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("version", [HOPPER], indirect=True)
@pytest.mark.parametrize("queries", [[1, 1, 1], [1, 17, 300]])
@pytest.mark.parametrize("page", [16, 256])
@pytest.mark.parametrize("name", ["all", "causal", "window"])
def test_schedules_computed_ahead(
    version: int, name: str, page: int, queries: list[int], dtype: torch.dtype
) -> None:
    """One schedule serves several calls and does not change their results."""
    keys, heads, size = [5, 900, 2000], (8, 2), 128
    q = torch.randn(sum(queries), heads[0], size).to(dtype)
    k, v, table = paged(version, keys, page, (heads[1], size), dtype)
    how, begin, lengths = (
        mask(name, heads[0]),
        starts(queries),
        torch.tensor(keys, dtype=torch.int32),
    )
    numbers = flash_attn.get_scheduler_metadata(
        *(len(keys), max(queries), max(keys), *heads, size, lengths),
        qkv_dtype=dtype,
        cu_seqlens_q=begin,
        page_size=page,
        causal=how.causal,
        window_size=how.window,
        num_splits=1,
    )
    call, before = flash_attn.flash_attn_varlen_func, numbers.clone()
    given = {
        "seqused_k": lengths,
        "block_table": table,
        "num_splits": 1,
        "fa_version": version,
        **how.arguments(),
    }
    without = attend(call, q, k, v, max(queries), begin, max(keys), **given)
    for _ in range(3):
        with_it = attend(
            call, q, k, v, max(queries), begin, max(keys), scheduler_metadata=numbers, **given
        )
        assert all(torch.equal(one, other) for one, other in zip(with_it, without, strict=True))
    assert torch.equal(numbers, before)
    for row, length in enumerate(keys):
        mine = slice(begin[row], begin[row + 1])
        each = (of_sequence(cache, table, row, length) for cache in (k, v))
        how.check(version, without[0][mine], without[1][:, mine], q[mine], *each)


@pytest.mark.parametrize("version", [HOPPER], indirect=True)
def test_more_sequences_than_a_block_divides(version: int) -> None:
    keys = [1 + row % 40 for row in range(1100)]
    q = torch.randn(len(keys), 4, 64).bfloat16()
    k, v, table = paged(version, keys, 16, (2, 64), torch.bfloat16)
    lengths = torch.tensor(keys, dtype=torch.int32)
    got, lse = attend(
        flash_attn.flash_attn_varlen_func,
        *(q, k, v, 1, starts([1] * len(keys)), max(keys)),
        seqused_k=lengths,
        block_table=table,
        fa_version=version,
    )
    for row in (0, 1, 39, 500, 990, 991, 992, 993, 1099):
        each = (of_sequence(cache, table, row, keys[row]) for cache in (k, v))
        Mask().check(version, got[row : row + 1], lse[:, row : row + 1], q[row : row + 1], *each)
