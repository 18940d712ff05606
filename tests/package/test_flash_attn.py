# SPDX-License-Identifier: Apache-2.0
"""What vllm.vllm_flash_attn hands to the ops: here, ops that write down what they get. tests/kernels computes with the real ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from vllm import _ops, vllm_flash_attn
from vllm.vllm_flash_attn import _versions

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
#: What the op of version 3 is handed where nothing is said.
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
    """As much of a tensor as is looked at."""

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


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The calls of the ops so far, by the names of their arguments."""
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
        _ops, "namespace", lambda name: {"_vllm_fa2_C": second, "_vllm_fa3_C": third}[name]
    )
    monkeypatch.setattr(_versions, "_hopper", {0: False})
    return made


@pytest.fixture
def hopper(calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
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
    return vllm_flash_attn.flash_attn_varlen_func(Q, K, V, 3, STARTS, 7, **given)


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
    vllm_flash_attn.flash_attn_varlen_func(
        scattered, K, scattered, 3, STARTS, 7, cu_seqlens_k=STARTS
    )
    assert (calls[0]["q"], calls[0]["k"], calls[0]["v"]) == (
        ("copy of", scattered),
        K,
        ("copy of", scattered),
    )


def test_what_says_nothing_here(calls: list[dict[str, Any]]) -> None:
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
    found = vllm_flash_attn.flash_attn_with_kvcache(
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
    assert vllm_flash_attn.flash_attn_with_kvcache(q, cache, cache) == "result"
    with pytest.raises(
        NotImplementedError, match="FlashAttention 2 does not take scheduler_metadata"
    ):
        vllm_flash_attn.flash_attn_with_kvcache(q, cache, cache, scheduler_metadata=q)
    with pytest.raises(NotImplementedError, match="FlashAttention 3 does not take alibi_slopes"):
        vllm_flash_attn.flash_attn_with_kvcache(q, cache, cache, fa_version=3, alibi_slopes=q)


def test_one_length_for_all(calls: list[dict[str, Any]]) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    q, cache = Tensor(2, 1, 4, 64), Tensor(2, 16, 2, 64)
    vllm_flash_attn.flash_attn_with_kvcache(q, cache, cache, cache_seqlens=7)
    assert calls[0]["seqlens_k"] == ("full", (2,), 7, torch.int32)


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
        vllm_flash_attn.flash_attn_with_kvcache(q, cache, cache, new, new, cos, sin, **given)
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
    """The device's best, but for slopes; or what the caller names."""
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
    assert vllm_flash_attn.get_scheduler_metadata(2, 3, 70, 8, 2, 64, LENGTHS) == "numbers"
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
    vllm_flash_attn.get_scheduler_metadata(
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
    monkeypatch.setattr(_ops, "available", frozenset)
    for version in (2, 3):
        said = vllm_flash_attn.fa_version_unsupported_reason(version)
        assert (
            said
            == f"the library _vllm_fa{version}_C is not installed: conda install vllm-flash-attn"
        )
    assert (
        vllm_flash_attn.fa_version_unsupported_reason(4)
        == "FlashAttention 4 is not built: this release has versions 2 and 3"
    )
    assert not vllm_flash_attn.is_fa_version_supported(4)
    for wrong in (1, 5):
        with pytest.raises(ValueError, match=f"there is no FlashAttention {wrong}"):
            vllm_flash_attn.is_fa_version_supported(wrong)


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
    monkeypatch.setattr(_ops, "available", lambda: frozenset({f"_vllm_fa{version}_C"}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    reason = vllm_flash_attn.fa_version_unsupported_reason(version)
    assert (reason is None) if said is None else (said in (reason or ""))
    assert vllm_flash_attn.is_fa_version_supported(version) == (said is None)


def test_importing_needs_no_torch(
    copy: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = python(
        copy,
        "import sys; sys.modules['torch'] = None\nimport vllm.vllm_flash_attn as f; "
        "print(f.is_fa_version_supported(2))",
    )
    assert done.stdout.split() == ["False"], done.stderr
