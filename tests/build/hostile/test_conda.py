# SPDX-License-Identifier: Apache-2.0
"""Hostile conda packages and channels: the named check refuses each, and the tree is unchanged."""

from __future__ import annotations

import json
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from reuse_files import (
    KERNEL_DIGEST,
    RECORD,
    Build,
    elf,
    snapshot,
    tar_zst,
    write_channel,
    write_conda,
    write_zip,
)
from reuse_scene import FIRST, SOUND, Scene
from reuse_server import serving

from vllm_build.reuse.lookup import kernel_channel
from vllm_build.reuse.records import bounds
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.settings.build_settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Make = Callable[[Path], Path]


def special(
    kind: bytes, name: str = "site-packages/vllm/odd.so", target: str = "/etc/passwd"
) -> Make:
    def make(folder: Path) -> Path:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        return conda_of([(info, b"")])(folder)

    return make


def conda_of(more: list[tuple[tarfile.TarInfo, bytes]], build: Build = SOUND) -> Make:
    def make(folder: Path) -> Path:
        sound = [
            (tarfile.TarInfo(f"site-packages/{path}"), data)
            for path, data in [*build.libraries.items(), (RECORD, build.record())]
        ]
        return write_conda(folder / "vllm-kernels-0.1.0-cpu_0.conda", [*sound, *more])

    return make


def named(name: str, data: bytes = b"x") -> Make:
    return conda_of([(tarfile.TarInfo(name), data)])


def content(data: bytes) -> Make:
    return lambda folder: write_conda(folder / "a-1-0.conda", [], data)


def truncated_content() -> bytes:
    return tar_zst([(tarfile.TarInfo("site-packages/vllm/_C.abi3.so"), elf(size=200_000))])[:-1000]


def zeros() -> bytes:
    info = tarfile.TarInfo("site-packages/vllm/_C.abi3.so")
    return tar_zst([(info, bytes(3 * bounds.MIB))])


def sparse(folder: Path) -> Path:
    info = tarfile.TarInfo("site-packages/vllm/odd.so")
    info.type = tarfile.GNUTYPE_SPARSE
    return conda_of([(info, b"")])(folder)


CONDAS: dict[str, tuple[str, Make]] = {
    "absolute path": ("absolute-path", named("/site-packages/vllm/_C.abi3.so")),
    "parent path": ("parent-path", named("site-packages/../../evil")),
    "backslash": ("backslash", named("site-packages\\evil")),
    "symbolic link": ("link", special(tarfile.SYMTYPE)),
    "hard link": ("link", special(tarfile.LNKTYPE)),
    "device": ("special-file", special(tarfile.CHRTYPE)),
    "pipe": ("special-file", special(tarfile.FIFOTYPE)),
    "duplicate": ("duplicate", named(f"site-packages/{FIRST}", elf(5))),
    "case collision": ("case-collision", named("site-packages/vllm/_c.abi3.so")),
    "library that no record lists": ("member-name", named("site-packages/vllm/_rocm_C.abi3.so")),
    "damaged content": ("directory", content(b"not zstandard")),
    "truncated content": ("directory", content(truncated_content())),
    "bomb": ("compression-ratio", content(zeros())),
    "no record": ("missing", content(tar_zst([]))),
    "two contents": (
        "directory",
        lambda folder: write_zip(
            folder / "a.conda", {"pkg-a.tar.zst": b"", "pkg-b.tar.zst": b""}, zipfile.ZIP_STORED
        ),
    ),
    "compressed twice": (
        "method",
        lambda folder: write_zip(
            folder / "a.conda", {"pkg-a.tar.zst": b"a" * 500}, zipfile.ZIP_DEFLATED
        ),
    ),
    "library without bytes": (
        "missing",
        conda_of([], Build({}, {"extensions": json.loads(SOUND.record())["extensions"]})),
    ),
    "wrong size": ("size", conda_of([], Build(lies={FIRST: {"size": 5}}))),
    "wrong sha256": ("sha256", conda_of([], Build(lies={FIRST: {"sha256": "0" * 64}}))),
    "stale digest": ("digest", conda_of([], Build(facts={"build_digest": "0" * 64}))),
}


@pytest.mark.parametrize("case", [case for case in CONDAS if case != "no record"])
def test_conda_files(scene: Scene, case: str) -> None:
    check, make = CONDAS[case]
    scene.refused(Settings(precompiled_location=str(make(scene.folder))), check)


@pytest.mark.parametrize("case", CONDAS)
def test_conda_files_of_a_channel(scene: Scene, case: str) -> None:
    check, make = CONDAS[case]
    path = make(scene.folder / kernel_channel.subdir())
    package = {
        "name": "vllm-kernels",
        "build": f"cpu_abi3_k{KERNEL_DIGEST[:12]}_h1_0",
        "build_number": 0,
        "sha256": next(iter(snapshot(path.parent).values())),
    }
    write_channel(scene.folder, kernel_channel.subdir(), {path.name: package})
    with serving() as server:
        server.folder = scene.folder
        keep = snapshot(scene.tree)
        before = {
            name
            for name in snapshot(scene.context.cache.root)
            if "/blobs/" not in name and "/refs/" not in name
        }
        with pytest.raises(RefusedError) as caught:
            scene.reuse(Settings(precompiled_stores=(server.url,)))
        assert caught.value.check == check
        assert snapshot(scene.tree) == keep
        # The package has the sha256 that the index lists, so the cache keeps it, but none of its
        # members.
        after = snapshot(scene.context.cache.root)
        assert {name for name in after if "/blobs/" not in name and "/refs/" not in name} == before
        assert {name.rsplit("/", 1)[1] for name in after if "/blobs/" in name} == {
            package["sha256"]
        }


def channel_of(
    package: dict[str, Any], name: str = "vllm-kernels-0.1.0-cpu_0.conda"
) -> dict[str, Any]:
    return {
        name: {
            "name": "vllm-kernels",
            "build": f"cpu_abi3_k{KERNEL_DIGEST[:12]}_h1_0",
            "sha256": "0" * 64,
            **package,
        }
    }


@pytest.mark.parametrize(
    ("packages", "check"),
    [
        (channel_of({}, "../../evil.conda"), "index"),
        (channel_of({}, "http://evil/evil.conda"), "index"),
        (channel_of({"sha256": None}), "index"),
        (channel_of({"sha256": "../x"}), "index"),
        (channel_of({"build_number": "x"}), "sha256"),
        (channel_of({}), "sha256"),
        ({"a.conda": 1}, "digest"),
    ],
)
def test_channels(scene: Scene, packages: dict[str, Any], check: str) -> None:
    SOUND.conda(scene.folder / kernel_channel.subdir())
    write_channel(scene.folder, kernel_channel.subdir(), packages)
    scene.refused(Settings(precompiled_stores=(str(scene.folder),)), check)


def test_a_channel_with_a_malformed_index(scene: Scene) -> None:
    write_channel(scene.folder, kernel_channel.subdir(), {})
    path = scene.folder / kernel_channel.subdir() / "repodata.json"
    path.write_text('{"packages.conda": []}', encoding="utf-8")
    scene.refused(Settings(precompiled_stores=(str(scene.folder),)), "document")
