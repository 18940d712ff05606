# SPDX-License-Identifier: Apache-2.0
"""Copying and converting blocks of caches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from float8 import E4M3, FOREIGN, REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable

FP8 = {"fp8_e4m3": E4M3, "fp8_e5m2": torch.float8_e5m2}


def ints(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


@pytest.mark.parametrize("size", [4, 40, 200_000])
def test_swap_blocks(cache_ops: Any, size: int) -> None:
    """Copies are made in order: a block may be overwritten and then copied."""
    src, dst = (
        torch.randint(0, 100, (5, size), dtype=torch.uint8),
        torch.randint(0, 100, (4, size), dtype=torch.uint8),
    )
    pairs = torch.tensor([[0, 3], [4, 1], [2, 3]])
    want = dst.clone()
    want[3], want[1] = src[2], src[4]
    cache_ops.swap_blocks(src, dst, size, pairs)
    assert torch.equal(dst, want)
    want = src.clone()
    for a, b in ([0, 1], [1, 2], [2, 0]):
        want[b] = want[a]
    cache_ops.swap_blocks(src, src, size, torch.tensor([[0, 1], [1, 2], [2, 0]]))
    assert torch.equal(src, want)


@pytest.mark.parametrize("distance", [1, 2, 3, 5])
def test_swap_neighbouring_blocks(cache_ops: Any, distance: int) -> None:
    """Copies are made one after the other, even if all could be made at once."""
    cache = torch.randint(0, 100, (10, 40), dtype=torch.uint8)
    other, want = cache.clone(), cache.clone()
    pairs = torch.tensor([[i, i + distance] for i in range(10 - distance)])
    for a, b in pairs.tolist():
        want[b] = want[a]
    cache_ops.swap_blocks(cache, other, 40, pairs)
    assert torch.equal(other[distance:], cache[:-distance])
    cache_ops.swap_blocks(cache, cache, 40, pairs)
    assert torch.equal(cache, want)


def test_swap_blocks_of_overlapping_caches(cache_ops: Any) -> None:
    both = torch.arange(3 * 70_000, dtype=torch.int32)
    want = both.clone()
    want[10:70_010] = both[:70_000]
    cache_ops.swap_blocks(both[:70_000], both[10:70_010], 280_000, torch.tensor([[0, 0]]))
    assert torch.equal(both, want)


BAD_SWAPS: dict[str, tuple[Callable[[], Any], str]] = {
    "src": (
        lambda: (torch.zeros(3, 4), torch.zeros(2, 4), 16, torch.tensor([[3, 0]])),
        r"block_mapping holds 3 at \[0, 0\], .* of src",
    ),
    "dst": (
        lambda: (torch.zeros(3, 4), torch.zeros(2, 4), 16, torch.tensor([[2, 2]])),
        r"block_mapping holds 2 at \[0, 1\], .* of dst",
    ),
    "negative": (
        lambda: (torch.zeros(3, 4), torch.zeros(2, 4), 16, torch.tensor([[-1, 0]])),
        "block_mapping holds -1",
    ),
    "odd": (
        lambda: (torch.zeros(3, 4), torch.zeros(2, 4), 17, torch.tensor([[2, 0]])),
        "block_mapping holds 2 .* block < 2",
    ),
    "no size": (
        lambda: (torch.zeros(3, 4), torch.zeros(2, 4), 0, torch.tensor([[0, 0]])),
        "block_size_in_bytes is 0",
    ),
    "strided": (
        lambda: (torch.zeros(4, 3).t(), torch.zeros(2, 4), 16, torch.tensor([[0, 0]])),
        "src has strides",
    ),
    "flat": (
        lambda: (torch.zeros(3, 4), torch.zeros(2, 4), 16, torch.tensor([0, 0])),
        r"block_mapping has shape \[2\]",
    ),
    "int": (
        lambda: (torch.zeros(3, 4), torch.zeros(2, 4), 16, ints([[0, 0]])),
        "block_mapping is of dtype Int",
    ),
}


@pytest.mark.parametrize("case", BAD_SWAPS)
def test_bad_swaps(cache_ops: Any, case: str) -> None:
    make, message = BAD_SWAPS[case]
    with pytest.raises(RuntimeError, match=f"^swap_blocks: {message}"):
        cache_ops.swap_blocks(*make())


def test_swap_blocks_batch(cache_ops: Any) -> None:
    sources = [
        torch.randint(0, 100, (size,), dtype=torch.uint8) for size in (0, 1, 33, 100_000, 5, 32768)
    ]
    targets = [torch.zeros(len(source) + 3, dtype=torch.uint8) for source in sources]
    addresses = [torch.tensor([t.data_ptr() for t in group]) for group in (sources, targets)]
    cache_ops.swap_blocks_batch(*addresses, torch.tensor([len(source) for source in sources]))
    for source, target in zip(sources, targets, strict=True):
        assert torch.equal(target[: len(source)], source)
        assert not target[len(source) :].any()
    none = torch.zeros(0, dtype=torch.int64)
    cache_ops.swap_blocks_batch(none, none, none)


BAD_BATCHES = {
    "no source": (([0], [8], [1]), "src_ptrs holds 0 at 0, expected an address"),
    "no target": (([8], [0], [1]), "dst_ptrs holds 0 at 0"),
    "negative size": (([8], [8], [-1]), "sizes holds -1 at 0, expected at least 0"),
    "one target": (
        ([8, 8], [8], [1, 1]),
        r"dst_ptrs has shape \[1\], expected \[2\]: the shape of src_ptrs",
    ),
    "one size": (([8, 8], [8, 8], [1]), r"sizes has shape \[1\], expected \[2\]"),
    "square": (([[8]], [[8]], [[1]]), r"src_ptrs has shape \[1, 1\], expected one dimension"),
}


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_bad_batches(cache_ops: Any, case: str) -> None:
    values, message = BAD_BATCHES[case]
    with pytest.raises(RuntimeError, match=f"^swap_blocks_batch: {message}"):
        cache_ops.swap_blocks_batch(*(torch.tensor(value) for value in values))
    with pytest.raises(RuntimeError, match=r"^swap_blocks_batch: src_ptrs is of dtype Int"):
        cache_ops.swap_blocks_batch(ints([8]), torch.tensor([8]), torch.tensor([0]))


@pytest.mark.parametrize("form", [*FP8, "auto"])
@pytest.mark.parametrize("shape", [(3, 5), (0, 4), (2, 3, 67), (1, 20_000)], ids=str)
@pytest.mark.parametrize("raw", [True, False], ids=["uint8", "float8"])
def test_convert(
    cache_ops: Any, check: Any, dtype: torch.dtype, form: str, shape: tuple[int, ...], *, raw: bool
) -> None:
    kind = FP8.get(form, E4M3)
    values, scale, most = (torch.randn(shape) * 300).to(dtype), 0.75, torch.finfo(kind).max
    codes = torch.zeros(shape, dtype=torch.uint8) if raw else torch.zeros(shape).to(kind)
    cache_ops.convert_fp8(codes, values, scale, form)
    want = (values.float() / scale).clamp(-most, most).to(kind)
    assert torch.equal(codes.view(torch.uint8), want.view(torch.uint8))
    back = torch.zeros(shape, dtype=dtype)
    cache_ops.convert_fp8(back, codes, 0.5, form)
    check(back, want.double() * 0.5)


def test_convert_every_code(cache_ops: Any, check: Any, dtype: torch.dtype) -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    for form, kind in FP8.items():
        back = torch.zeros(256, dtype=dtype)
        cache_ops.convert_fp8(back, codes, 1.0, form)
        check(back, codes.view(kind).double())


def test_convert_strided(cache_ops: Any) -> None:
    values, codes = torch.randn(4, 9)[:, 1:6], torch.zeros(4, 8, dtype=torch.uint8)
    cache_ops.convert_fp8(codes[:, 2:7], values, 1.0, "fp8")
    assert torch.equal(codes[:, 2:7], values.to(E4M3).view(torch.uint8))
    assert not codes[:, [0, 1, 7]].any()


BAD_CONVERSIONS = {
    "shapes": (
        torch.zeros(3).byte(),
        torch.zeros(4),
        "fp8",
        r"dst_cache has shape \[3\], expected \[4\]",
    ),
    "two fp8": (
        torch.zeros(3).byte(),
        torch.zeros(3).byte(),
        "fp8",
        "dst_cache is of dtype Byte, expected Float",
    ),
    "no fp8": (
        torch.zeros(3),
        torch.zeros(3),
        "fp8",
        "dst_cache is of dtype Float, expected Float8_e4m3fn",
    ),
    "doubles": (
        torch.zeros(3).byte(),
        torch.zeros(3).double(),
        "fp8",
        "src_cache is of dtype Double",
    ),
    "signed": (torch.zeros(3).char(), torch.zeros(3), "fp8", "dst_cache is of dtype Char"),
    "other": (
        torch.zeros(3).to(torch.float8_e5m2),
        torch.zeros(3),
        "fp8",
        "dst_cache is of dtype Float8_e5m2",
    ),
    "another device": (torch.zeros(3).to(FOREIGN), torch.zeros(3), "fp8", f"dst_cache {REFUSED}"),
    "name": (torch.zeros(3).byte(), torch.zeros(3), "fp4", "kv_cache_dtype is 'fp4', expected"),
    "same": (
        torch.zeros(3).byte(),
        torch.zeros(3),
        "bfloat16",
        "kv_cache_dtype is 'bfloat16', expected",
    ),
}


@pytest.mark.parametrize("case", BAD_CONVERSIONS)
def test_bad_conversions(cache_ops: Any, case: str) -> None:
    dst, src, form, message = BAD_CONVERSIONS[case]
    with pytest.raises(RuntimeError, match=f"^convert_fp8: {message}"):
        cache_ops.convert_fp8(dst, src, 1.0, form)
