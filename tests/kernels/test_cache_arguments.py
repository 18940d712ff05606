# SPDX-License-Identifier: Apache-2.0
"""Errors of writing tokens into paged caches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from float8 import FOREIGN, REFUSED


def flash(cache_ops: Any, **changes: Any) -> None:
    arguments = {
        "key": torch.zeros(3, 2, 8),
        "value": torch.zeros(3, 2, 8),
        "key_cache": torch.zeros(4, 16, 2, 8),
        "value_cache": torch.zeros(4, 16, 2, 8),
        "slot_mapping": torch.arange(3),
        "kv_cache_dtype": "auto",
        "k_scale": torch.ones(1),
        "v_scale": torch.ones(1),
    }
    cache_ops.reshape_and_cache_flash(**(arguments | changes))


BYTES = {
    "key_cache": torch.zeros(4, 16, 2, 8).byte(),
    "value_cache": torch.zeros(4, 16, 2, 8).byte(),
}


BAD = {
    "slot too large": (
        {"slot_mapping": torch.tensor([1, 64, 2])},
        "slot_mapping holds 64 for token 1, expected -1 or 0 <= slot < 64",
    ),
    "slot below -1": (
        {"slot_mapping": torch.tensor([1, 2, -2])},
        "slot_mapping holds -2 for token 2",
    ),
    "slot near overflow": (
        {"slot_mapping": torch.tensor([2**63 - 1])},
        "slot_mapping holds 9223372036854775807",
    ),
    "int32 slots": (
        {"slot_mapping": torch.arange(3).int()},
        "slot_mapping is of dtype Int, expected Long",
    ),
    "too many slots": (
        {"slot_mapping": torch.arange(4)},
        r"slot_mapping has shape \[4\], expected one dimension of at most 3",
    ),
    "no such format": (
        {"kv_cache_dtype": "fp8_ds_mla"},
        "kv_cache_dtype is 'fp8_ds_mla', expected auto, .* or fp8_e5m2",
    ),
    "other dtype": (BYTES, "key_cache is of dtype Byte, expected Float, the dtype of key"),
    "not bfloat16": (
        {"kv_cache_dtype": "bfloat16"},
        "key_cache is of dtype Float, expected BFloat16",
    ),
    "fp8 in floats": (
        {"kv_cache_dtype": "fp8"},
        "key_cache is of dtype Float, expected Float8_e4m3fn",
    ),
    "other fp8": (
        {name: tensor.view(torch.float8_e5m2) for name, tensor in BYTES.items()}
        | {"kv_cache_dtype": "fp8"},
        "key_cache is of dtype Float8_e5m2, expected Float8_e4m3fn",
    ),
    "fp8 of another device": (
        {name: tensor.view(FOREIGN) for name, tensor in BYTES.items()} | {"kv_cache_dtype": "fp8"},
        f"key_cache {REFUSED}",
    ),
    "value of other heads": (
        {"value": torch.zeros(3, 1, 8)},
        r"value has shape \[3, 1, 8\], expected \[3, 2, 8\]",
    ),
    "flat key": ({"key": torch.zeros(3, 16)}, r"key has shape \[3, 16\], expected \[num_tokens"),
    "cache of other heads": (
        {"key_cache": torch.zeros(4, 16, 3, 8)},
        r"key_cache has shape .*, expected \[num_blocks, block_size, 2, 8\]",
    ),
    "value cache of other shape": (
        {"value_cache": torch.zeros(4, 8, 2, 8)},
        r"value_cache has shape .*: the shape of key_cache",
    ),
    "cache over itself": (
        {"key_cache": torch.zeros(1, 16, 2, 8).expand(4, 16, 2, 8)},
        "key_cache has strides .*, expected separate memory",
    ),
    "two scales of three": (
        {"k_scale": torch.ones(3)},
        r"k_scale has shape \[3\], expected \[1\] or \[2\]",
    ),
    "double scale": (
        {"v_scale": torch.ones(1).double()},
        "v_scale is of dtype Double, expected Float",
    ),
    "double tokens": (
        {name: torch.zeros(3, 2, 8).double() for name in ("key", "value")}
        | {"key_cache": torch.zeros(4, 16, 2, 8).double()},
        "key has elements of 8 bytes",
    ),
}


#: Cases of BAD that are about the contents of a tensor.
CONTENTS = {"slot too large", "slot below -1", "slot near overflow"}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.contents) if case in CONTENTS else case for case in BAD],
)
def test_bad_arguments(cache_ops: Any, case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(RuntimeError, match=f"^reshape_and_cache_flash: {message}"):
        flash(cache_ops, **changes)


@pytest.mark.contents
def test_a_bad_slot_changes_nothing(cache_ops: Any) -> None:
    caches = {"key_cache": torch.randn(4, 16, 2, 8), "value_cache": torch.randn(4, 16, 2, 8)}
    before = {name: tensor.clone() for name, tensor in caches.items()}
    with pytest.raises(RuntimeError, match="slot_mapping holds 64"):
        flash(cache_ops, slot_mapping=torch.tensor([0, 1, 64]), **caches)
    assert all(torch.equal(tensor, before[name]) for name, tensor in caches.items())


def test_x_has_to_divide_an_interleaved_block(cache_ops: Any) -> None:
    caches = torch.zeros(2, 1, 2, 6, 4), torch.zeros(2, 1, 1, 8, 4)
    with pytest.raises(
        RuntimeError,
        match=r"^reshape_and_cache: key_cache has shape .*, expected a block_size that x divides",
    ):
        cache_ops.reshape_and_cache(
            torch.zeros(1, 1, 8),
            torch.zeros(1, 1, 8),
            *caches,
            torch.arange(1),
            "auto",
            *torch.ones(2, 1),
            True,
        )


def test_an_empty_cache_takes_padding(cache_ops: Any) -> None:
    empty = torch.zeros(0, 16, 2, 8)
    flash(cache_ops, key_cache=empty, value_cache=empty, slot_mapping=torch.tensor([-1, -1, -1]))


@pytest.mark.contents
def test_an_empty_cache_takes_only_padding(cache_ops: Any) -> None:
    empty = torch.zeros(0, 16, 2, 8)
    with pytest.raises(RuntimeError, match="slot_mapping holds 0"):
        flash(cache_ops, key_cache=empty, value_cache=empty, slot_mapping=torch.tensor([-1, 0]))
