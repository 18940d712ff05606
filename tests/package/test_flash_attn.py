# SPDX-License-Identifier: Apache-2.0
"""What vllm.vllm_flash_attn hands to the ops: here, ops that write down what they get. tests/kernels computes with the real ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from vllm import _ops, vllm_flash_attn
from vllm.vllm_flash_attn import flash_attn_interface as interface

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

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


class Tensor:
    """As much of a tensor as is looked at."""

    def __init__(self, *shape: int, stride: int = 1) -> None:
        self.shape, self._stride = shape, stride

    def stride(self, dim: int) -> int:
        assert dim == -1
        return self._stride

    def contiguous(self) -> tuple[str, Tensor]:
        return "copy of", self

    def new_full(self, shape: tuple[int, ...], value: int, *, dtype: object) -> tuple[object, ...]:
        return "full", shape, value, dtype


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The calls of the ops so far, by the names of their arguments."""
    made: list[dict[str, Any]] = []

    def op(names: list[str]) -> Callable[..., list[str]]:
        def called(*arguments: Any) -> list[str]:
            made.append(dict(zip(names, arguments, strict=True)))
            return ["result", "lse"]

        return called

    table = SimpleNamespace(varlen_fwd=op(VARLEN), fwd_kvcache=op(KVCACHE))
    monkeypatch.setattr(_ops, "namespace", lambda name: {"_vllm_fa2_C": table}[name])
    return made


Q, K, V, STARTS, LENGTHS, TABLE = Tensor(5, 4, 64), Tensor(9, 2, 64), Tensor(9, 2, 64), Tensor(3), Tensor(2), Tensor(2, 4)


def varlen(**given: Any) -> Any:
    return vllm_flash_attn.flash_attn_varlen_func(Q, K, V, 3, STARTS, 7, **given)


def test_paged(calls: list[dict[str, Any]]) -> None:
    assert varlen(seqused_k=LENGTHS, block_table=TABLE, causal=True, window_size=(8, 0), softcap=30.0, num_splits=1) == "result"
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
    found = varlen(cu_seqlens_k=ends, out=out, alibi_slopes=slopes, softmax_scale=2.0, return_softmax_lse=True)
    assert found == ("result", "lse")
    (call,) = calls
    assert [call[name] for name in ("cu_seqlens_k", "out", "alibi_slopes", "softmax_scale")] == [ends, out, slopes, 2.0]
    assert (call["window_size_left"], call["window_size_right"], call["seqused_k"], call["is_causal"]) == (-1, -1, None, False)


def test_elements_side_by_side(calls: list[dict[str, Any]]) -> None:
    scattered = Tensor(5, 4, 64, stride=2)
    vllm_flash_attn.flash_attn_varlen_func(scattered, K, scattered, 3, STARTS, 7, cu_seqlens_k=STARTS)
    assert (calls[0]["q"], calls[0]["k"], calls[0]["v"]) == (("copy of", scattered), K, ("copy of", scattered))


def test_what_says_nothing_here(calls: list[dict[str, Any]]) -> None:
    """Upstream's attention layer passes these to every version."""
    scale = Tensor(2, 2)
    varlen(cu_seqlens_k=STARTS, q_descale=scale, k_descale=scale, v_descale=scale, deterministic=True, mask_mod=None, dynamic_causal=None)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"q_v": Q}, "q_v"),
        ({"dropout_p": 0.1}, "dropout_p"),
        ({"return_attn_probs": True}, "return_attn_probs"),
        ({"scheduler_metadata": Q, "s_aux": Q}, "scheduler_metadata, s_aux"),
        ({"cp_world_size": 2}, "cp_world_size"),
        ({"mask_mod": len}, "mask_mod"),
        ({"fa_version": 3}, "FlashAttention 3 is not built"),
        ({"fa_version": 4}, "FlashAttention 4 is not built"),
    ],
)
def test_what_is_not_built(calls: list[dict[str, Any]], given: dict[str, Any], named: str) -> None:
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
def test_lengths_that_do_not_fit(calls: list[dict[str, Any]], given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        varlen(**given)
    assert calls == []


def test_caches(calls: list[dict[str, Any]]) -> None:
    q, cache, new, table = Tensor(2, 1, 4, 64), Tensor(8, 16, 2, 64), Tensor(2, 1, 2, 64), Tensor(2, 4)
    found = vllm_flash_attn.flash_attn_with_kvcache(
        q, cache, cache, new, new, cache_seqlens=LENGTHS, block_table=table, causal=True, num_splits=4, return_softmax_lse=True
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
    assert vllm_flash_attn.flash_attn_with_kvcache(q, cache, cache) == "result"
    with pytest.raises(NotImplementedError, match="FlashAttention 2 does not take scheduler_metadata"):
        vllm_flash_attn.flash_attn_with_kvcache(q, cache, cache, scheduler_metadata=q)
    with pytest.raises(NotImplementedError, match="FlashAttention 3 is not built"):
        vllm_flash_attn.flash_attn_with_kvcache(q, cache, cache, fa_version=3)


def test_one_length_for_all(calls: list[dict[str, Any]]) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    q, cache = Tensor(2, 1, 4, 64), Tensor(2, 16, 2, 64)
    vllm_flash_attn.flash_attn_with_kvcache(q, cache, cache, cache_seqlens=7)
    assert calls[0]["seqlens_k"] == ("full", (2,), 7, torch.int32)


def test_metadata() -> None:
    with pytest.raises(NotImplementedError, match="get_scheduler_metadata: FlashAttention 3 is not built"):
        vllm_flash_attn.get_scheduler_metadata(batch_size=1)


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ops, "available", frozenset)
    assert "not installed: conda install vllm-flash-attn" in (vllm_flash_attn.fa_version_unsupported_reason(2) or "")
    for version in (3, 4):
        assert vllm_flash_attn.fa_version_unsupported_reason(version) == (
            f"FlashAttention {version} is not built: this release has version 2"
        )
        assert not vllm_flash_attn.is_fa_version_supported(version)
    for wrong in (1, 5):
        with pytest.raises(ValueError, match=f"there is no FlashAttention {wrong}"):
            vllm_flash_attn.is_fa_version_supported(wrong)


@pytest.mark.parametrize(
    ("capability", "said"),
    [(None, "no CUDA device"), ((7, 5), "this device has 7.5"), ((8, 0), None), ((12, 0), None)],
)
def test_devices(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None, said: str | None) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    monkeypatch.setattr(_ops, "available", lambda: frozenset({"_vllm_fa2_C"}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    reason = vllm_flash_attn.fa_version_unsupported_reason(2)
    assert (reason is None) if said is None else (said in (reason or ""))
    assert interface.is_fa_version_supported(2) == (said is None)


def test_importing_needs_no_torch(copy: Path, python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = python(copy, "import sys; sys.modules['torch'] = None\nimport vllm.vllm_flash_attn as f; print(f.is_fa_version_supported(2))")
    assert done.stdout.split() == ["False"], done.stderr
