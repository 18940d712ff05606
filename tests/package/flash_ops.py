# SPDX-License-Identifier: Apache-2.0
"""Replacements for FlashAttention's ops that record their arguments."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from vllm._kernels import flash_attn, loader
from vllm._kernels.flash_attn import _versions

if TYPE_CHECKING:
    from collections.abc import Callable


#: Arguments of the ops in the order of their schemas (upstream 0.33).
VARLEN = [
    "q",
    "k",
    "v",
    "out",
    "cu_seqlens_q",
    "cu_seqlens_k",
    "seqused_k",
    "leftpad_k",
    "block_table",
    "alibi_slopes",
    "max_seqlen_q",
    "max_seqlen_k",
    "p_dropout",
    "softmax_scale",
    "zero_tensors",
    "is_causal",
    "window_size_left",
    "window_size_right",
    "softcap",
    "return_softmax",
    "num_splits",
    "gen",
]


KVCACHE = [
    "q",
    "kcache",
    "vcache",
    "k",
    "v",
    "seqlens_k",
    "rotary_cos",
    "rotary_sin",
    "cache_batch_idx",
    "leftpad_k",
    "block_table",
    "alibi_slopes",
    "out",
    "softmax_scale",
    "is_causal",
    "window_size_left",
    "window_size_right",
    "softcap",
    "is_rotary_interleaved",
    "num_splits",
]


FORWARD = [
    *(
        "q",
        "k",
        "v",
        "k_new",
        "v_new",
        "q_v",
        "out",
        "cu_seqlens_q",
        "cu_seqlens_k",
        "cu_seqlens_k_new",
        "seqused_q",
        "seqused_k",
    ),
    *(
        "max_seqlen_q",
        "max_seqlen_k",
        "page_table",
        "kv_batch_idx",
        "leftpad_k",
        "rotary_cos",
        "rotary_sin",
        "seqlens_rotary",
    ),
    *(
        "q_descale",
        "k_descale",
        "v_descale",
        "softmax_scale",
        "is_causal",
        "window_size_left",
        "window_size_right",
        "softcap",
    ),
    *(
        "is_rotary_interleaved",
        "scheduler_metadata",
        "num_splits",
        "pack_gqa",
        "sm_margin",
        "s_aux",
        "cp_world_size",
        "cp_rank",
    ),
    "cp_tot_seqused_k",
]


DIVIDE = [
    *(
        "batch_size",
        "max_seqlen_q",
        "max_seqlen_k",
        "num_heads",
        "num_heads_k",
        "headdim",
        "headdim_v",
        "qkv_dtype",
        "seqused_k",
    ),
    *(
        "cu_seqlens_q",
        "cu_seqlens_k",
        "cu_seqlens_k_new",
        "seqused_q",
        "leftpad_k",
        "page_size",
        "max_seqlen_k_new",
        "is_causal",
    ),
    *(
        "window_size_left",
        "window_size_right",
        "has_softcap",
        "num_splits",
        "pack_gqa",
        "sm_margin",
    ),
]


#: Arguments of version 3's op by default.
NOTHING_3 = {
    **dict.fromkeys(FORWARD),
    "softmax_scale": 0.125,
    "is_causal": False,
    "window_size_left": -1,
    "window_size_right": -1,
    "softcap": 0.0,
    "is_rotary_interleaved": True,
    "num_splits": 0,
    "sm_margin": 0,
    "cp_world_size": 1,
    "cp_rank": 0,
}


class Tensor:
    """The attributes of a tensor that the functions use."""

    def __init__(self, *shape: int, stride: int = 1) -> None:
        self.shape, self._stride = shape, stride

    def stride(self, dim: int) -> int:
        assert dim == -1
        return self._stride

    def contiguous(self) -> tuple[str, Tensor]:
        return "copy of", self

    def get_device(self) -> int:
        return 0

    def new_full(self, shape: tuple[int, ...], value: int, *, dtype: object) -> tuple[object, ...]:
        return "full", shape, value, dtype


@pytest.fixture(name="calls")
def recorded_calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The calls of the ops so far, by argument names."""
    made: list[dict[str, Any]] = []

    def op(names: list[str], found: Any) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            made.append(dict(zip(names, arguments, strict=True)))
            return found

        return called

    results = ["result", "lse"]
    second = SimpleNamespace(varlen_fwd=op(VARLEN, results), fwd_kvcache=op(KVCACHE, results))
    third = SimpleNamespace(
        fwd=op(FORWARD, ["result 3", "lse 3", "empty", "empty"]),
        get_scheduler_metadata=op(DIVIDE, "numbers"),
    )
    monkeypatch.setattr(
        loader, "namespace", lambda name: {"_vllm_fa2_C": second, "_vllm_fa3_C": third}[name]
    )
    monkeypatch.setattr(_versions, "_hopper", {0: False})
    return made


@pytest.fixture(name="hopper")
def hopper_calls(
    calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, Any]]:
    """The same on a device where version 3 runs."""
    monkeypatch.setattr(_versions, "_hopper", {0: True})
    return calls


Q, K, V, STARTS, LENGTHS, TABLE = (
    Tensor(5, 4, 64),
    Tensor(9, 2, 64),
    Tensor(9, 2, 64),
    Tensor(3),
    Tensor(2),
    Tensor(2, 4),
)


def varlen(**given: Any) -> Any:
    return flash_attn.flash_attn_varlen_func(Q, K, V, 3, STARTS, 7, **given)
