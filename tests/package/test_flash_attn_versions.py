# SPDX-License-Identifier: Apache-2.0
"""FlashAttention 3, and the choice of the version, with ops that record their arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from flash_ops import (  # noqa: F401 - fixtures
    DIVIDE,
    LENGTHS,
    NOTHING_3,
    STARTS,
    TABLE,
    K,
    Q,
    Tensor,
    V,
    hopper_calls,
    recorded_calls,
    varlen,
)

from vllm._kernels import flash_attn, loader
from vllm._kernels.flash_attn import _versions

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path


def test_paged_by_version_3(hopper: list[dict[str, Any]]) -> None:
    out, division = Tensor(5, 4, 64), Tensor(13)
    given = {
        "seqused_k": LENGTHS,
        "block_table": TABLE,
        "scheduler_metadata": division,
        "out": out,
        "num_splits": 4,
    }
    assert varlen(
        causal=True, window_size=(8, 0), softcap=30.0, return_softmax_lse=True, **given
    ) == ("result 3", "lse 3")
    assert hopper == [
        {
            **NOTHING_3,
            "q": Q,
            "k": K,
            "v": V,
            "out": out,
            "cu_seqlens_q": STARTS,
            "seqused_k": LENGTHS,
            "max_seqlen_q": 3,
            "max_seqlen_k": 7,
            "page_table": TABLE,
            "is_causal": True,
            "window_size_left": 8,
            "window_size_right": 0,
            "softcap": 30.0,
            "scheduler_metadata": division,
            "num_splits": 4,
        }
    ]


def test_packed_by_version_3(hopper: list[dict[str, Any]]) -> None:
    assert varlen(cu_seqlens_k=STARTS, softmax_scale=2.0) == "result 3"
    packed = {
        "q": Q,
        "k": K,
        "v": V,
        "cu_seqlens_q": STARTS,
        "cu_seqlens_k": STARTS,
        "max_seqlen_q": 3,
        "max_seqlen_k": 7,
    }
    assert hopper == [{**NOTHING_3, **packed, "softmax_scale": 2.0}]


def test_caches_by_version_3(hopper: list[dict[str, Any]]) -> None:
    q, cache, new, left = (
        Tensor(2, 1, 4, 64),
        Tensor(8, 16, 2, 64),
        Tensor(2, 1, 2, 64, stride=2),
        Tensor(2),
    )
    cos, sin = Tensor(16, 8), Tensor(16, 8)
    given: dict[str, Any] = {
        "cache_seqlens": LENGTHS,
        "cache_leftpad": left,
        "rotary_interleaved": False,
        "cache_batch_idx": left,
    }
    assert (
        flash_attn.flash_attn_with_kvcache(q, cache, cache, new, new, cos, sin, **given)
        == "result 3"
    )
    expected = {
        "k_new": ("copy of", new),
        "v_new": ("copy of", new),
        "seqused_k": LENGTHS,
        "kv_batch_idx": left,
        "leftpad_k": left,
    }
    rotation = {"rotary_cos": cos, "rotary_sin": sin, "is_rotary_interleaved": False}
    assert hopper == [{**NOTHING_3, "q": q, "k": cache, "v": cache, **expected, **rotation}]


def test_the_version_that_runs(hopper: list[dict[str, Any]]) -> None:
    """The best version for the device, except with slopes; or the requested one."""
    assert varlen(cu_seqlens_k=STARTS) == "result 3"
    assert varlen(cu_seqlens_k=STARTS, alibi_slopes=Tensor(4)) == "result"
    assert varlen(cu_seqlens_k=STARTS, fa_version=2) == "result"
    _versions._hopper[0] = False
    assert varlen(cu_seqlens_k=STARTS) == "result"
    assert varlen(cu_seqlens_k=STARTS, fa_version=3) == "result 3"
    with pytest.raises(ValueError, match="there is no FlashAttention 5"):
        varlen(cu_seqlens_k=STARTS, fa_version=5)
    assert len(hopper) == 5


def test_the_device_is_asked_once(
    calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def supported(*given: object) -> bool:
        asked.append(given)
        return True

    monkeypatch.setattr(_versions, "_hopper", {})
    monkeypatch.setattr(_versions, "is_fa_version_supported", supported)
    assert [varlen(cu_seqlens_k=STARTS) for _ in range(2)] == ["result 3", "result 3"]
    assert asked == [(3, 0)]
    assert len(calls) == 2


def test_metadata(calls: list[dict[str, Any]]) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    assert flash_attn.get_scheduler_metadata(2, 3, 70, 8, 2, 64, LENGTHS) == "numbers"
    nothing = {
        **dict.fromkeys(DIVIDE),
        "batch_size": 2,
        "max_seqlen_q": 3,
        "max_seqlen_k": 70,
        "num_heads": 8,
        "num_heads_k": 2,
        "headdim": 64,
        "headdim_v": 64,
        "qkv_dtype": torch.bfloat16,
        "seqused_k": LENGTHS,
        "max_seqlen_k_new": 0,
        "is_causal": False,
        "window_size_left": -1,
        "window_size_right": -1,
        "has_softcap": False,
        "num_splits": 0,
        "sm_margin": 0,
    }
    assert calls == [nothing]
    given: dict[str, Any] = {
        "headdim_v": 64,
        "qkv_dtype": torch.float16,
        "cu_seqlens_q": STARTS,
        "cu_seqlens_k_new": STARTS,
        "max_seqlen_k_new": 5,
    }
    more: dict[str, Any] = {
        "page_size": 16,
        "has_softcap": True,
        "num_splits": 3,
        "pack_gqa": True,
        "sm_margin": 2,
    }
    flash_attn.get_scheduler_metadata(
        2,
        3,
        70,
        8,
        2,
        64,
        LENGTHS,
        cache_leftpad=LENGTHS,
        causal=True,
        window_size=(9, 0),
        **given,
        **more,
    )
    mask = {"leftpad_k": LENGTHS, "is_causal": True, "window_size_left": 9, "window_size_right": 0}
    assert calls[1] == {**nothing, **given, **more, **mask}


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "available", frozenset)
    for version in (2, 3):
        said = flash_attn.fa_version_unsupported_reason(version)
        assert (
            said
            == f"the library _vllm_fa{version}_C is not installed: conda install vllm-flash-attn"
        )
    assert (
        flash_attn.fa_version_unsupported_reason(4)
        == "FlashAttention 4 is not built: this release has versions 2 and 3"
    )
    assert not flash_attn.is_fa_version_supported(4)
    for wrong in (1, 5):
        with pytest.raises(ValueError, match=f"there is no FlashAttention {wrong}"):
            flash_attn.is_fa_version_supported(wrong)


@pytest.mark.parametrize(
    ("version", "capability", "said"),
    [
        (2, None, "no CUDA device"),
        (2, (7, 5), "8.0 or newer, this device has 7.5"),
        (2, (8, 0), None),
        (2, (12, 0), None),
        (3, None, "no CUDA device"),
        (3, (8, 9), "needs compute capability 9.0, this device has 8.9"),
        (3, (9, 0), None),
        (3, (10, 0), "needs compute capability 9.0, this device has 10.0"),
    ],
)
def test_devices(
    monkeypatch: pytest.MonkeyPatch,
    version: int,
    capability: tuple[int, int] | None,
    said: str | None,
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    monkeypatch.setattr(loader, "available", lambda: frozenset({f"_vllm_fa{version}_C"}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    reason = flash_attn.fa_version_unsupported_reason(version)
    assert (reason is None) if said is None else (said in (reason or ""))
    assert flash_attn.is_fa_version_supported(version) == (said is None)


def test_importing_needs_no_torch(
    copy: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = python(
        copy,
        "import sys; sys.modules['torch'] = None\nimport vllm._kernels.flash_attn as f; "
        "print(f.is_fa_version_supported(2))",
    )
    assert done.stdout.split() == ["False"], done.stderr
