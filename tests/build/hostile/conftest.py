# SPDX-License-Identifier: Apache-2.0
"""Fixtures for the corpus of hostile input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from reuse_files import Build, elf
from reuse_scene import FIRST, SOUND, Scene

from vllm_build.reuse.net import remote_file
from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.net.transport import Transport
from vllm_build.reuse.records import bounds
from vllm_build.reuse.stores import store_publish

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def short_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the first request from fetching these small wheels whole."""
    monkeypatch.setattr(remote_file, "TAIL", 66 * bounds.KIB)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "user-cache"))
    tree = Build({FIRST: elf(99)}).unpacked(tmp_path / "tree")
    context = Context(Cache(tmp_path / "cache"), Transport(timeout=0.4, attempts=2, pause=0.01))
    with context.cache.in_use():
        pass
    (tmp_path / "hostile").mkdir()
    return Scene(tree, context, tmp_path / "hostile")


@pytest.fixture
def store(scene: Scene) -> Path:
    store_publish.publish(
        SOUND.unpacked(scene.folder / "built"), scene.folder / "store", scene.context
    )
    return scene.folder / "store"
