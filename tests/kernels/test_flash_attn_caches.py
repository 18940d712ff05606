# SPDX-License-Identifier: Apache-2.0
"""FlashAttention 2 and 3 over caches, with appended and rotated keys.

Needs a GPU and the libraries: `make gpu-tests`.
"""

from __future__ import annotations

import pytest
import torch
from flash_reference import CASES, EPSILON, HEADS, Mask, attend, half_dtype, installed_version, mask  # noqa: F401 - fixtures

from vllm._kernels import flash_attn

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize(("version", "name"), CASES, indirect=["version"])
def test_caches(
    version: int, heads: tuple[int, int], queries: int, name: str, dtype: torch.dtype
) -> None:
    keys, size = [200, 3, 77], 64
    q = torch.randn(3, queries, heads[0], size).to(dtype)
    k, v = (torch.randn(3, 256, heads[1], size).to(dtype) for _ in range(2))
    how = mask(name, heads[0])
    lengths = torch.tensor(keys, dtype=torch.int32)
    got, lse = attend(
        flash_attn.flash_attn_with_kvcache,
        q,
        k,
        v,
        cache_seqlens=lengths,
        fa_version=version,
        **how.arguments(),
    )
    for row, length in enumerate(keys):
        how.check(version, got[row], lse[row], q[row], k[row, :length], v[row, :length])


@pytest.mark.parametrize("layout", ["one piece", "pages"])
def test_appending(version: int, layout: str, dtype: torch.dtype) -> None:
    keys, size, new = [200, 3], 128, 5
    q = torch.randn(2, new, 4, size).to(dtype)
    fresh = [torch.randn(2, new, 2, size).to(dtype) for _ in range(2)]
    table = torch.tensor([[2, 0], [1, 3]], dtype=torch.int32) if layout == "pages" else None
    shape = (2, 256, 2, size) if table is None else (4, 128, 2, size)
    caches = [torch.randn(*shape).to(dtype) for _ in range(2)]
    before = [cache.clone() for cache in caches]
    lengths = torch.tensor(keys, dtype=torch.int32)
    given = {"cache_seqlens": lengths, "block_table": table, "causal": True, "fa_version": version}
    got, lse = attend(flash_attn.flash_attn_with_kvcache, q, *caches, *fresh, **given)
    for row, length in enumerate(keys):
        whole = [
            cache[table[row].long()].flatten(0, 1) if table is not None else cache[row]
            for cache in (*before, *caches)
        ]
        want = [
            torch.cat([old[:length], added[row], old[length + new :]])
            for old, added in zip(whole[:2], fresh, strict=True)
        ]
        assert all(torch.equal(now, then) for now, then in zip(whole[2:], want, strict=True))
        Mask(causal=True).check(
            version, got[row], lse[row], q[row], want[0][: length + new], want[1][: length + new]
        )


@pytest.mark.parametrize("interleaved", ["interleaved", "halves"])
def test_rotating(version: int, interleaved: str, dtype: torch.dtype) -> None:
    keys, size, rotated, new = [40, 7], 64, 32, 3
    q, k, v = (torch.randn(2, new, heads, size).to(dtype) for heads in (4, 2, 2))
    caches = [torch.randn(2, 128, 2, size).to(dtype) for _ in range(2)]
    before = [cache.clone() for cache in caches]
    angles = torch.rand(128, rotated // 2) * 6
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)

    def turn(x: torch.Tensor, place: int) -> torch.Tensor:
        pairs = x[..., :rotated].double()
        a, b = (
            (pairs[..., 0::2], pairs[..., 1::2])
            if interleaved == "interleaved"
            else pairs.chunk(2, dim=-1)
        )
        c, s = (t[place : place + new, None].double() for t in (cos, sin))
        turned = (a * c - b * s, a * s + b * c)
        joined = (
            torch.stack(turned, dim=-1).flatten(-2)
            if interleaved == "interleaved"
            else torch.cat(turned, dim=-1)
        )
        return torch.cat([joined.to(dtype), x[..., rotated:]], dim=-1)

    got, lse = attend(
        flash_attn.flash_attn_with_kvcache,
        *(q, *caches, k, v, cos, sin, torch.tensor(keys, dtype=torch.int32)),
        causal=True,
        rotary_interleaved=interleaved == "interleaved",
        fa_version=version,
    )
    for row, length in enumerate(keys):
        end = length + new
        torch.testing.assert_close(
            caches[0][row, length:end],
            turn(k[row], length),
            rtol=EPSILON[dtype],
            atol=EPSILON[dtype],
        )
        whole = torch.cat([before[0][row, :length], caches[0][row, length:end]])
        Mask(causal=True).check(
            version,
            got[row],
            lse[row],
            turn(q[row], length),
            whole,
            torch.cat([before[1][row, :length], v[row]]),
        )
