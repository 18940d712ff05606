# SPDX-License-Identifier: Apache-2.0
"""Hostile stores: the named check refuses each, and tree, cache and store stay unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from reuse_files import DIGEST
from reuse_scene import Scene, index, library, refused_by_store
from reuse_server import serving

from vllm_build.reuse.stores import store_entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Spoil = Callable[[Path], None]


def member(key: str, value: Any, number: int = 1) -> Spoil:
    return index(lambda document: document["builds"][0]["members"][number].update({key: value}))


def first(change: Callable[[dict[str, Any]], None]) -> Spoil:
    return index(lambda document: change(document["builds"][0]))


def damage(store: Path) -> None:
    path = library(store)
    path.write_bytes(b"?" + path.read_bytes()[1:])


def shorten(store: Path) -> None:
    path = library(store)
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(store: Path) -> None:
    path = library(store)
    path.write_bytes(path.read_bytes() + b"?")


def other_kind(store: Path) -> None:
    (store / store_entry.MARKER).write_text('{"schema": 2}', encoding="utf-8")


def no_json(store: Path) -> None:
    (store / store_entry.digest_path(DIGEST)).write_text("?", encoding="utf-8")


def too_large(store: Path) -> None:
    (store / store_entry.digest_path(DIGEST)).write_text(" " * 2_000_000, encoding="utf-8")


ARCHIVE = {"name": "vllm-1-py3-none-any.whl", "sha256": "0" * 64, "size": 1}
STORES: dict[str, tuple[str, Spoil]] = {
    "another kind": ("index", other_kind),
    "no JSON": ("document", no_json),
    "too large": ("size-limit", too_large),
    "another digest": ("index", index(lambda document: document.update(digest="0" * 64))),
    "another output": ("index", index(lambda document: document.update(output="vllm-flashmla"))),
    "no builds": ("index", index(lambda document: document.update(builds=[]))),
    "builds that are none": ("document", index(lambda document: document.update(builds=[1]))),
    "archive elsewhere": (
        "index",
        first(lambda build: build.update(archive={**ARCHIVE, "name": "../../evil.whl"})),
    ),
    "archive by address": (
        "index",
        first(lambda build: build.update(archive={**ARCHIVE, "name": "http://evil/evil.whl"})),
    ),
    "archive that is none": ("document", first(lambda build: build.update(archive="x"))),
    "enormous archive": (
        "size-limit",
        first(lambda build: build.update(archive={**ARCHIVE, "size": 1 << 60})),
    ),
    "member elsewhere": ("parent-path", member("name", "vllm/../../evil.so")),
    "member that is no library": ("index", member("name", "vllm/_kernels/loader.py")),
    "member by a path, not a sha256": ("document", member("sha256", "../../../etc/passwd")),
    "no record": ("index", first(lambda build: build["members"].pop(0))),
    "fewer members than the record": ("index", first(lambda build: build["members"].pop())),
    "another size than the record": ("index", member("size", 7)),
    "another sha256 than the record": ("index", member("sha256", "0" * 64)),
    "damaged member": ("sha256", damage),
    "shortened member": ("size", shorten),
    "lengthened member": ("size", lengthen),
}


@pytest.mark.parametrize("case", STORES)
def test_stores(scene: Scene, store: Path, case: str) -> None:
    check, spoil = STORES[case]
    spoil(store)
    refused_by_store(scene, str(store), check)


@pytest.mark.parametrize("case", STORES)
def test_stores_over_http(scene: Scene, store: Path, case: str) -> None:
    check, spoil = STORES[case]
    spoil(store)
    with serving() as server:
        server.folder = store
        # A file of a server is hashed after the download; its size is not compared first.
        refused_by_store(
            scene,
            server.url,
            "sha256" if case in ("shortened member", "lengthened member") else check,
        )
