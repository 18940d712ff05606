# SPDX-License-Identifier: Apache-2.0
"""FlashAttention 2 and 3 against attention in float64.

Needs a GPU and the libraries: `make gpu-tests`.

VLLM_FA_SET selects the kernels of a build. A test whose kernel is not built is skipped with the
library's error message. ``test_the_smallest_set`` fails if a kernel of the smallest set is
missing.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from flash_reference import (  # noqa: F401 - fixtures
    CASES,
    HEADS,
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


@pytest.mark.parametrize("size", [64, 128, 40, 120])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize(("version", "name"), CASES, indirect=["version"])
def test_packed(
    version: int, size: int, heads: tuple[int, int], name: str, dtype: torch.dtype
) -> None:
    queries, keys = [1, 5, 130, 64, 33], [7, 5, 300, 64, 129]
    q = torch.randn(sum(queries), heads[0], size).to(dtype)
    k, v = (torch.randn(sum(keys), heads[1], size).to(dtype) for _ in range(2))
    how, begin, first = mask(name, heads[0]), starts(queries), starts(keys)
    call = flash_attn.flash_attn_varlen_func
    got, lse = attend(
        call, q, k, v, max(queries), begin, max(keys), first, fa_version=version, **how.arguments()
    )
    for row in range(len(queries)):
        mine, theirs = slice(begin[row], begin[row + 1]), slice(first[row], first[row + 1])
        how.check(version, got[mine], lse[:, mine], q[mine], k[theirs], v[theirs])


@pytest.mark.parametrize("page", [16, 48, 256])
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize(("version", "name"), CASES, indirect=["version"])
def test_paged(
    version: int, page: int, size: int, heads: tuple[int, int], name: str, dtype: torch.dtype
) -> None:
    queries, keys = [1, 17, 3, 100, 1], [1, 17, 500, 777, 0]
    q = torch.randn(sum(queries), heads[0], size).to(dtype)
    k, v, table = paged(version, keys, page, (heads[1], size), dtype)
    how, begin = mask(name, heads[0]), starts(queries)
    got, lse = attend(
        flash_attn.flash_attn_varlen_func,
        *(q, k, v, max(queries), begin, max(keys)),
        seqused_k=torch.tensor(keys, dtype=torch.int32),
        block_table=table,
        fa_version=version,
        **how.arguments(),
    )
    for row, length in enumerate(keys):
        mine = slice(begin[row], begin[row + 1])
        how.check(
            version,
            got[mine],
            lse[:, mine],
            q[mine],
            of_sequence(k, table, row, length),
            of_sequence(v, table, row, length),
        )


@pytest.mark.parametrize("splits", [0, 1, 3, 128])
@pytest.mark.parametrize("page", [16, 256])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize(
    ("version", "name"),
    [case for case in CASES if case[1] not in ("all", "both sides")],
    indirect=["version"],
)
def test_decode(
    version: int, splits: int, page: int, heads: tuple[int, int], name: str, dtype: torch.dtype
) -> None:
    keys, size = [1, 4000, 0, 2049, 255], 128
    q = torch.randn(len(keys), heads[0], size).to(dtype)
    k, v, table = paged(version, keys, page, (heads[1], size), dtype)
    how, out = mask(name, heads[0]), torch.empty_like(q)
    got, lse = attend(
        flash_attn.flash_attn_varlen_func,
        *(q, k, v, 1, starts([1] * len(keys)), max(keys)),
        seqused_k=torch.tensor(keys, dtype=torch.int32),
        block_table=table,
        num_splits=splits,
        fa_version=version,
        out=out,
        **how.arguments(),
    )
    assert got.data_ptr() == out.data_ptr()
    for row, length in enumerate(keys):
        mine = slice(row, row + 1)
        how.check(
            version,
            got[mine],
            lse[:, mine],
            q[mine],
            of_sequence(k, table, row, length),
            of_sequence(v, table, row, length),
        )


def test_one_split_is_the_same_in_every_batch(version: int, dtype: torch.dtype) -> None:
    keys, size = [1000, 3000], 64
    q = torch.randn(2, 8, size).to(dtype)
    k, v, table = paged(version, keys, 16, (2, size), dtype)
    lengths = torch.tensor(keys, dtype=torch.int32)

    def run(rows: slice) -> torch.Tensor:
        count = len(keys[rows])
        given = {
            "seqused_k": lengths[rows],
            "block_table": table[rows],
            "num_splits": 1,
            "fa_version": version,
        }
        return attend(
            flash_attn.flash_attn_varlen_func,
            q[rows],
            k,
            v,
            1,
            starts([1] * count),
            4000,
            **given,
        )[0]

    assert torch.equal(run(slice(0, 2))[1:], run(slice(1, 2)))


def test_empty_inputs(version: int, dtype: torch.dtype) -> None:
    k = torch.randn(4, 16, 2, 64).to(dtype)
    given = {
        "seqused_k": torch.zeros(2, dtype=torch.int32),
        "block_table": torch.zeros(2, 1, dtype=torch.int32),
        "fa_version": version,
    }
    none = torch.empty(0, 4, 64, dtype=dtype)
    got, lse = attend(flash_attn.flash_attn_varlen_func, none, k, k, 0, starts([0, 0]), 0, **given)
    assert (got.shape, lse.shape) == ((0, 4, 64), (4, 0))
    ones = torch.ones(2, 4, 64).to(dtype)
    got, lse = attend(flash_attn.flash_attn_varlen_func, ones, k, k, 1, starts([1, 1]), 0, **given)
    assert not got.any()
    assert (lse == (-math.inf if version == HOPPER else math.inf)).all()


def test_the_smallest_set(version: int) -> None:
    """Even VLLM_FA_SET=check has head size 64 in bfloat16.

    In version 2 the keys are contiguous, in version 3 they are in pages.
    """
    queries, keys = [5, 70], [40, 300]
    q = torch.randn(sum(queries), 8, 64).bfloat16()
    begin, first = starts(queries), starts(keys)
    if version == HOPPER:
        k, v, table = paged(version, keys, 16, (2, 64), torch.bfloat16)
        where: dict[str, Any] = {
            "seqused_k": torch.tensor(keys, dtype=torch.int32),
            "block_table": table,
        }
        each = [
            [of_sequence(cache, table, row, length) for row, length in enumerate(keys)]
            for cache in (k, v)
        ]
    else:
        k, v = (torch.randn(sum(keys), 2, 64).bfloat16() for _ in range(2))
        where = {"cu_seqlens_k": first}
        each = [
            [cache[first[row] : first[row + 1]] for row in range(len(keys))] for cache in (k, v)
        ]
    got, lse = flash_attn.flash_attn_varlen_func(
        q,
        k,
        v,
        max(queries),
        begin,
        max(keys),
        return_softmax_lse=True,
        fa_version=version,
        **where,
    )
    for row in range(len(keys)):
        mine = slice(begin[row], begin[row + 1])
        Mask().check(version, got[mine], lse[:, mine], q[mine], each[0][row], each[1][row])
