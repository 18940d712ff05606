# SPDX-License-Identifier: Apache-2.0
"""Arguments that vllm._kernels.flashmla passes to the op, which here records them.

tests/kernels computes with the real op.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from vllm._kernels import flashmla, loader

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

Q, CACHE = SimpleNamespace(shape=(2, 3, 16, 576)), SimpleNamespace(shape=(9, 64, 1, 576))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The arguments of the op's calls so far."""
    made: list[tuple[Any, ...]] = []

    def dense_decode_fwd(*arguments: Any) -> tuple[str, ...]:
        made.append(arguments)
        return "out", "lse", "parts", "splits"

    monkeypatch.setattr(
        loader,
        "namespace",
        lambda name: {"_flashmla_C": SimpleNamespace(dense_decode_fwd=dense_decode_fwd)}[name],
    )
    return made


def decode(meta: Any, **changed: Any) -> Any:
    given: dict[str, Any] = {
        "q": Q,
        "k_cache": CACHE,
        "block_table": "table",
        "cache_seqlens": "lengths",
        "head_dim_v": 512,
    } | changed
    return flashmla.flash_mla_with_kvcache(tile_scheduler_metadata=meta, **given)


def test_the_first_call_fills_the_metadata(calls: list[tuple[Any, ...]]) -> None:
    meta, nothing = flashmla.get_mla_metadata("arguments of", "earlier releases", is_fp8=False)
    assert nothing is None
    assert (meta.have_initialized, meta.tile_scheduler_metadata, meta.num_splits) == (
        False,
        None,
        None,
    )
    assert decode(meta, causal=True) == ("out", "lse")
    assert calls.pop() == (Q, CACHE, 512, "lengths", "table", 576**-0.5, True, None, None, None)
    assert (meta.have_initialized, meta.tile_scheduler_metadata, meta.num_splits) == (
        True,
        "parts",
        "splits",
    )
    assert decode(meta, causal=True, softmax_scale=0.0, out="memory") == ("out", "lse")
    assert calls.pop() == (
        Q,
        CACHE,
        512,
        "lengths",
        "table",
        0.0,
        True,
        "parts",
        "splits",
        "memory",
    )


def test_metadata_of_other_sizes_is_refused(calls: list[tuple[Any, ...]]) -> None:
    meta, _ = flashmla.get_mla_metadata()
    decode(meta)
    for changed in (
        {"causal": True},
        {"q": SimpleNamespace(shape=(2, 1, 16, 576))},
        {"q": SimpleNamespace(shape=(1, 3, 16, 576))},
    ):
        with pytest.raises(ValueError, match=r"call get_mla_metadata\(\) again"):
            decode(meta, **changed)
    assert len(calls) == 1


def test_a_call_that_fails_leaves_the_metadata_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(loader, "namespace", lambda _name: SimpleNamespace(dense_decode_fwd=refuse))
    meta, _ = flashmla.get_mla_metadata()
    with pytest.raises(RuntimeError, match="no"):
        decode(meta)
    assert meta == flashmla.FlashMLASchedMeta()


@pytest.mark.parametrize(
    "name",
    [
        "indices",
        "attn_sink",
        "extra_k_cache",
        "extra_indices_in_kvcache",
        "topk_length",
        "extra_topk_length",
        "is_fp8_kvcache",
    ],
)
def test_missing_features_are_refused(calls: list[tuple[Any, ...]], name: str) -> None:
    with pytest.raises(NotImplementedError, match=f"^{name}: .* not built"):
        decode(flashmla.FlashMLASchedMeta(), **{name: True})
    assert not calls


def test_wrong_arguments(calls: list[tuple[Any, ...]]) -> None:
    with pytest.raises(
        TypeError,
        match="tile_scheduler_metadata is of type str, expected the first result of "
        "get_mla_metadata",
    ):
        decode("parts")
    with pytest.raises(TypeError, match="num_splits is of type str, expected None"):
        decode(flashmla.FlashMLASchedMeta(), num_splits="splits")
    for missing in ("block_table", "cache_seqlens"):
        with pytest.raises(ValueError, match="block_table or cache_seqlens is missing"):
            decode(flashmla.FlashMLASchedMeta(), **{missing: None})
    assert not calls


def test_the_reason_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert flashmla.is_flashmla_sparse_supported() == (False, "sparse attention is not built")
    monkeypatch.setattr(loader, "available", frozenset)
    supported, why = flashmla.is_flashmla_dense_supported()
    assert not supported
    assert "_flashmla_C is not installed: conda install vllm-flashmla" in (why or "")


@pytest.mark.parametrize(
    ("gpus", "capability", "why"),
    [
        (False, None, "torch finds no CUDA device"),
        (True, (8, 0), "FlashMLA needs compute capability 9.0, this device has 8.0"),
        (True, (10, 0), "FlashMLA needs compute capability 9.0, this device has 10.0"),
        (True, (9, 0), None),
    ],
)
def test_devices(
    monkeypatch: pytest.MonkeyPatch,
    gpus: bool,  # noqa: FBT001
    capability: tuple[int, int] | None,
    why: str | None,
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    monkeypatch.setattr(loader, "available", lambda: frozenset({"_flashmla_C"}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert flashmla.is_flashmla_dense_supported() == (why is None, why)


def test_importing_needs_no_torch(
    copy: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\nimport vllm._kernels.flashmla as f; "
        "print(f.is_flashmla_dense_supported()[0])"
    )
    done = python(copy, code)
    assert done.stdout.split() == ["False"], done.stderr
