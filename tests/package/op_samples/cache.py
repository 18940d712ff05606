# SPDX-License-Identifier: Apache-2.0
"""Sample calls of the cache ops; tests/package/test_custom_ops.py describes the format."""

from __future__ import annotations

from typing import Any

import torch

SLOTS = (4, -1, 11)
ONE = torch.ones(1)

#: Tensors that swap_blocks_batch copies by address; they must outlive the call.
MEMORY = torch.arange(64, dtype=torch.float32), torch.zeros(64)


def _flash(*args: Any) -> dict[int, torch.Tensor]:
    for token, slot in enumerate(SLOTS):
        if slot >= 0:
            args[2][slot // 4, slot % 4] = args[0][token]
            args[3][slot // 4, slot % 4] = args[1][token]
    return {2: args[2], 3: args[3]}


def _reshape_and_cache(*args: Any) -> dict[int, torch.Tensor]:
    key, value, key_cache, value_cache = args[:4]
    for token, slot in enumerate(SLOTS):
        if slot >= 0:
            key_cache[slot // 4, :, :, slot % 4] = key[token].unflatten(-1, (2, 4))
            value_cache[slot // 4, :, :, slot % 4] = value[token]
    return {2: key_cache, 3: value_cache}


def _mla(*args: Any) -> dict[int, torch.Tensor]:
    kv_c, k_pe, kv_cache = args[:3]
    for token, slot in enumerate(SLOTS):
        if slot >= 0:
            kv_cache[slot // 4, slot % 4] = torch.cat((kv_c[token], k_pe[token]))
    return {2: kv_cache}


def _gathered(*args: Any) -> dict[int, torch.Tensor]:
    cache, dst = args[:2]
    dst[:] = torch.stack(
        [cache[2, 1], cache[2, 2], cache[0, 0], cache[0, 1], cache[0, 2], cache[0, 3], cache[1, 0]]
    )
    return {1: dst}


def _gather_arguments() -> tuple[torch.Tensor, ...]:
    table, ends = (
        torch.tensor([[2, 1], [0, 1]], dtype=torch.int32),
        torch.tensor([0, 2, 7], dtype=torch.int32),
    )
    return torch.randn(3, 4, 5), torch.zeros(7, 5), table, ends


def _swapped(*args: Any) -> dict[int, torch.Tensor]:
    src, dst = args[:2]
    dst[2], dst[0] = src[0], src[1]
    return {1: dst}


def _addresses() -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor([memory.data_ptr() + 128, memory.data_ptr()]) for memory in MEMORY)


STARTS = (1, 0)
SAMPLES = {
    "reshape_and_cache": (
        lambda: (
            *(
                torch.randn(3, 2, 8),
                torch.randn(3, 2, 8),
                torch.zeros(3, 2, 2, 4, 4),
                torch.zeros(3, 2, 8, 4),
            ),
            *(torch.tensor(SLOTS), "auto", ONE.clone(), ONE.clone(), False),
        ),
        _reshape_and_cache,
    ),
    "reshape_and_cache_flash": (
        lambda: (
            *(
                torch.randn(3, 2, 8),
                torch.randn(3, 2, 8),
                torch.zeros(3, 4, 2, 8),
                torch.zeros(3, 4, 2, 8),
            ),
            *(torch.tensor(SLOTS), "auto", ONE.clone(), ONE.clone()),
        ),
        _flash,
    ),
    "concat_and_cache_mla": (
        lambda: (
            torch.randn(3, 6),
            torch.randn(3, 2),
            torch.zeros(3, 4, 8),
            torch.tensor(SLOTS),
            "auto",
            ONE.clone(),
            False,
        ),
        _mla,
    ),
    "swap_blocks": (
        lambda: (torch.randn(3, 4), torch.zeros(3, 4), 16, torch.tensor([[0, 2], [1, 0]])),
        _swapped,
    ),
    "swap_blocks_batch": (
        lambda: (*_addresses(), torch.tensor([128, 4])),
        lambda src, dst, sizes: {0: src, 1: dst, 2: sizes},
    ),
    "gather_and_maybe_dequant_cache": (
        lambda: (
            *(
                *_gather_arguments(),
                torch.tensor([0, 0, 1, 1, 1, 1, 1], dtype=torch.int32),
                7,
                "auto",
            ),
            *(ONE.clone(), torch.tensor(STARTS, dtype=torch.int32)),
        ),
        _gathered,
    ),
    "cp_gather_cache": (
        lambda: (*_gather_arguments(), 2, torch.tensor(STARTS, dtype=torch.int32)),
        _gathered,
    ),
    "convert_fp8": (
        lambda: (torch.zeros(3, 5, dtype=torch.uint8), torch.randn(3, 5), 0.5, "fp8"),
        lambda _dst, src, scale, _format: {
            0: (src / scale).to(torch.float8_e4m3fn).view(torch.uint8)
        },
    ),
}
