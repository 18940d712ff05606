# SPDX-License-Identifier: Apache-2.0
"""A tree, a cache and hostile input, and what every test of the corpus does with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from reuse_files import DIGEST, LIBRARIES, MACHINE, Build, snapshot

from vllm_build.reuse import placement
from vllm_build.reuse.lookup import decisions as plan
from vllm_build.reuse.lookup import offers
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import store_entry
from vllm_build.settings.build_settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vllm_build.reuse.net.reuse_context import Context

    Spoil = Callable[[Path], None]


SOUND = Build()
FIRST = LIBRARIES[0]


@dataclass
class Scene:
    """A tree with kernels of an earlier build, a cache, and a folder for hostile input."""

    tree: Path
    context: Context
    folder: Path

    def reuse(self, settings: Settings) -> None:
        """Do what a build does, from the settings to the files in the tree."""
        with self.context.cache.in_use():
            opened = offers.of_settings(self.context, settings)
            try:
                decisions = plan.make(
                    [SOUND.wanted()], opened, MACHINE, partial=settings.precompiled_partial
                )
                (decision,) = decisions
                assert decision.offer is not None
                assert decision.record is not None
                placement.place({**decision.offer.libraries(decision.record)}, self.tree)
            finally:
                for source in opened:
                    source.close()

    def refused(self, settings: Settings, check: str) -> RefusedError:
        """Require that reuse fails in ``check`` and changes nothing."""
        before = snapshot(self.tree, self.context.cache.root, self.folder)
        with pytest.raises(RefusedError) as caught:
            self.reuse(settings)
        error = caught.value
        assert error.check == check, str(error)
        assert f"(check: {check})" in str(error)
        assert error.expected
        assert error.remedy
        assert snapshot(self.tree, self.context.cache.root, self.folder) == before
        return error


def refused_by_store(scene: Scene, location: str, check: str, key: Path | None = None) -> None:
    """As ``Scene.refused``, but the cache may have new files that match their index."""
    keep = snapshot(scene.tree, scene.folder)
    with pytest.raises(RefusedError) as caught:
        scene.reuse(Settings(precompiled_stores=(location,), precompiled_key=key))
    assert caught.value.check == check, str(caught.value)
    assert snapshot(scene.tree, scene.folder) == keep
    for name, sha256 in snapshot(scene.context.cache.root / "blobs").items():
        assert name.endswith(sha256)
    assert not snapshot(scene.context.cache.root / "incoming", scene.context.cache.root / "parts")


def index(change: Callable[[dict[str, Any]], None]) -> Spoil:
    """A function that changes the document of a store."""

    def spoil(store: Path) -> None:
        path = store / store_entry.digest_path(DIGEST)
        document = json.loads(path.read_text(encoding="utf-8"))
        change(document)
        path.write_text(json.dumps(document), encoding="utf-8")

    return spoil


def library(store: Path) -> Path:
    """The file of the store's first library."""
    document = json.loads((store / store_entry.digest_path(DIGEST)).read_text(encoding="utf-8"))
    return store / store_entry.member_path(document["builds"][0]["members"][1]["sha256"])
