# SPDX-License-Identifier: Apache-2.0
"""The cache of reused files, and the meter of received bytes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from reuse_files import elf

from vllm_build.reuse.net.reuse_cache import Cache, key_of
from vllm_build.reuse.net.reuse_context import Context, Meter
from vllm_build.util.errors import BusyError
from vllm_build.util.files import sha256_of

if TYPE_CHECKING:
    from pathlib import Path
DATA = elf(7, 300_000)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    cache = Cache(tmp_path / "cache")
    with cache.in_use():
        pass
    return cache


def test_blobs(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    sha256 = sha256_of(tmp_path / "file")
    assert cache.find(sha256) is None
    cache.remember(key_of("a", 1), sha256)
    assert cache.recall(key_of("a", 1)) is None
    path = cache.add(tmp_path / "file", sha256)
    assert cache.find(sha256) == path == cache.recall(key_of("a", 1))
    assert cache.recall(key_of("a", 2)) is None
    cache.remember(key_of("b"), "../../etc/passwd")
    assert cache.recall(key_of("b")) is None
    (cache.root / "refs" / key_of("b")).write_bytes(b"\xff\xfe")
    assert cache.recall(key_of("b")) is None
    path.write_bytes(b"damaged")
    assert cache.find(sha256) is None
    assert not path.exists()


def test_cleaning(cache: Cache, tmp_path: Path) -> None:
    added = []
    for number in range(2):
        (tmp_path / "file").write_bytes(b"x" * (number + 1))
        added.append(cache.add(tmp_path / "file", f"{number:064x}"))
    assert next((usage.folder, usage.files, usage.size) for usage in cache.usage()) == (
        "blobs",
        2,
        3,
    )
    os.utime(added[-1], (0, 0))
    assert (cache.clean(1).files, cache.usage()[0].files) == (1, 1)
    with cache.in_use(), pytest.raises(BusyError, match="another process uses"):
        cache.clean()
    assert (cache.clean().size, cache.usage()[0].files) == (1, 0)


def test_the_usual_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path))
    assert Context().cache.root == tmp_path / "reuse"
    assert isinstance(Context().progress, Meter)


def test_a_meter(capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter()
    meter.report()
    assert capsys.readouterr().err == ""
    meter(2_000_000)
    meter.report()
    assert capsys.readouterr().err.startswith("fetched 2.0 MB in ")
