# SPDX-License-Identifier: Apache-2.0
"""Arguments that vllm._kernels.flash_attn passes to the ops, which here only record them.

tests/kernels computes with the real ops.
"""

from __future__ import annotations

from typing import Any

import pytest
from flash_ops import (
    KVCACHE,
    LENGTHS,
    STARTS,
    TABLE,
    VARLEN,
    K,
    Q,
    Tensor,
    V,
    recorded_calls,  # noqa: F401 - a fixture
    varlen,
)

from vllm._kernels import flash_attn


def test_paged(calls: list[dict[str, Any]]) -> None:
    assert (
        varlen(
            seqused_k=LENGTHS,
            block_table=TABLE,
            causal=True,
            window_size=(8, 0),
            softcap=30.0,
            num_splits=1,
        )
        == "result"
    )
    assert calls == [
        {
            **dict.fromkeys(VARLEN),
            "q": Q,
            "k": K,
            "v": V,
            "cu_seqlens_q": STARTS,
            "cu_seqlens_k": STARTS,
            "seqused_k": LENGTHS,
            "block_table": TABLE,
            "max_seqlen_q": 3,
            "max_seqlen_k": 7,
            "p_dropout": 0.0,
            "softmax_scale": 0.125,
            "zero_tensors": False,
            "is_causal": True,
            "window_size_left": 8,
            "window_size_right": 0,
            "softcap": 30.0,
            "return_softmax": False,
            "num_splits": 1,
        }
    ]


def test_packed(calls: list[dict[str, Any]]) -> None:
    ends, out, slopes = Tensor(3), Tensor(5, 4, 64), Tensor(4)
    found = varlen(
        cu_seqlens_k=ends, out=out, alibi_slopes=slopes, softmax_scale=2.0, return_softmax_lse=True
    )
    assert found == ("result", "lse")
    (call,) = calls
    assert [call[name] for name in ("cu_seqlens_k", "out", "alibi_slopes", "softmax_scale")] == [
        ends,
        out,
        slopes,
        2.0,
    ]
    assert (
        call["window_size_left"],
        call["window_size_right"],
        call["seqused_k"],
        call["is_causal"],
    ) == (-1, -1, None, False)


def test_elements_side_by_side(calls: list[dict[str, Any]]) -> None:
    scattered = Tensor(5, 4, 64, stride=2)
    flash_attn.flash_attn_varlen_func(scattered, K, scattered, 3, STARTS, 7, cu_seqlens_k=STARTS)
    assert (calls[0]["q"], calls[0]["k"], calls[0]["v"]) == (
        ("copy of", scattered),
        K,
        ("copy of", scattered),
    )


def test_arguments_without_effect(calls: list[dict[str, Any]]) -> None:
    """Upstream's attention layer passes these to every version."""
    scale = Tensor(2, 2)
    varlen(
        cu_seqlens_k=STARTS,
        q_descale=scale,
        k_descale=scale,
        v_descale=scale,
        deterministic=True,
        mask_mod=None,
        dynamic_causal=None,
    )
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"q_v": Q}, "q_v"),
        ({"dropout_p": 0.1}, "dropout_p"),
        ({"return_attn_probs": True}, "return_attn_probs"),
        (
            {"scheduler_metadata": Q, "s_aux": Q},
            "FlashAttention 2 does not take scheduler_metadata, s_aux",
        ),
        ({"cp_world_size": 2}, "cp_world_size"),
        ({"mask_mod": len}, "mask_mod"),
        ({"fa_version": 3, "alibi_slopes": Q}, "FlashAttention 3 does not take alibi_slopes"),
        (
            {"fa_version": 3, "s_aux": Q, "cp_world_size": 2, "q_v": Q},
            "FlashAttention 3 does not take q_v, s_aux, cp_world_size",
        ),
        ({"fa_version": 4}, "FlashAttention 4 is not built: this release has versions 2 and 3"),
    ],
)
def test_missing_features_are_refused(
    calls: list[dict[str, Any]], given: dict[str, Any], named: str
) -> None:
    with pytest.raises(NotImplementedError, match=named):
        varlen(cu_seqlens_k=STARTS, **given)
    assert calls == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "both missing"),
        ({"cu_seqlens_k": STARTS, "seqused_k": LENGTHS}, "both given"),
        ({"cu_seqlens_k": STARTS, "block_table": TABLE}, "without seqused_k"),
        ({"seqused_k": LENGTHS}, "without block_table"),
        ({"cu_seqlens_k": STARTS, "window_size": (1,)}, "unpack"),
    ],
)
def test_lengths_that_do_not_fit(
    calls: list[dict[str, Any]], given: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        varlen(**given)
    assert calls == []


def test_caches(calls: list[dict[str, Any]]) -> None:
    q, cache, new, table = (
        Tensor(2, 1, 4, 64),
        Tensor(8, 16, 2, 64),
        Tensor(2, 1, 2, 64),
        Tensor(2, 4),
    )
    found = flash_attn.flash_attn_with_kvcache(
        q,
        cache,
        cache,
        new,
        new,
        cache_seqlens=LENGTHS,
        block_table=table,
        causal=True,
        num_splits=4,
        return_softmax_lse=True,
    )
    assert found == ("result", "lse")
    assert calls == [
        {
            **dict.fromkeys(KVCACHE),
            "q": q,
            "kcache": cache,
            "vcache": cache,
            "k": new,
            "v": new,
            "seqlens_k": LENGTHS,
            "block_table": table,
            "softmax_scale": 0.125,
            "is_causal": True,
            "window_size_left": -1,
            "window_size_right": -1,
            "softcap": 0.0,
            "is_rotary_interleaved": True,
            "num_splits": 4,
        }
    ]
    assert flash_attn.flash_attn_with_kvcache(q, cache, cache) == "result"
    with pytest.raises(
        NotImplementedError, match="FlashAttention 2 does not take scheduler_metadata"
    ):
        flash_attn.flash_attn_with_kvcache(q, cache, cache, scheduler_metadata=q)
    with pytest.raises(NotImplementedError, match="FlashAttention 3 does not take alibi_slopes"):
        flash_attn.flash_attn_with_kvcache(q, cache, cache, fa_version=3, alibi_slopes=q)


def test_one_length_for_all(calls: list[dict[str, Any]]) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    q, cache = Tensor(2, 1, 4, 64), Tensor(2, 16, 2, 64)
    flash_attn.flash_attn_with_kvcache(q, cache, cache, cache_seqlens=7)
    assert calls[0]["seqlens_k"] == ("full", (2,), 7, torch.int32)
