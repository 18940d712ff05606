# SPDX-License-Identifier: Apache-2.0
"""Hostile wheels: the named check refuses each, and tree and cache stay unchanged."""

from __future__ import annotations

import stat
import struct
import zipfile
from typing import TYPE_CHECKING

import pytest
from reuse_files import LIBRARIES, RECORD, WHEEL_NAME, Build, elf, write_zip
from reuse_scene import FIRST, SOUND, Scene
from reuse_server import serving

from vllm_build.reuse.records import bounds
from vllm_build.settings.build_settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Make = Callable[[Path], Path]


def members(**more: bytes) -> dict[str, bytes]:
    return {**SOUND.members(), **more}


def zip_of(more: Mapping[str, bytes]) -> Make:
    return lambda folder: SOUND.wheel(folder, more=more)


def with_info(
    change: Callable[[zipfile.ZipInfo], None], name: str = "vllm/odd.py", data: bytes = b"x"
) -> Make:
    """Write a wheel with another member, whose directory entry ``change`` alters first."""

    def make(folder: Path) -> Path:
        path = SOUND.wheel(folder)
        with zipfile.ZipFile(path, "a") as archive:
            info = zipfile.ZipInfo(name)
            change(info)
            archive.writestr(info, data)
        return path

    return make


def mode(kind: int) -> Callable[[zipfile.ZipInfo], None]:
    def change(info: zipfile.ZipInfo) -> None:
        info.create_system = 3
        info.external_attr = (kind | 0o644) << 16

    return change


def twice(first: str, second: str) -> Make:
    def make(folder: Path) -> Path:
        path = SOUND.wheel(folder)
        with zipfile.ZipFile(path, "a") as archive:
            for place, name in (("vllm/first", first), ("vllm/second", second)):
                archive.writestr(zipfile.ZipInfo(place), b"x")
                archive.filelist[-1].filename = name
        return path

    return make


def patched(change: Callable[[bytearray, dict[str, int]], None]) -> Make:
    """Write a wheel, and alter its bytes.

    ``change`` gets the bytes, and member -> offset of its entry in the directory.
    """

    def make(folder: Path) -> Path:
        path = write_zip(folder / WHEEL_NAME, members(), zipfile.ZIP_STORED)
        data = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            at, offsets = archive.start_dir, {}
            for info in archive.infolist():
                offsets[info.filename] = at
                at += 46 + len(info.filename)
        offsets["end"] = at
        change(data, offsets)
        path.write_bytes(data)
        return path

    return make


def put(
    layout: str, entry_offset: int, value: int, name: str = FIRST
) -> Callable[[bytearray, dict[str, int]], None]:
    return lambda data, offsets: struct.pack_into(layout, data, offsets[name] + entry_offset, value)


def flip(data: bytearray, offsets: dict[str, int]) -> None:
    del offsets
    data[data.index(SOUND.libraries[FIRST]) + 100] ^= 1


def overlap(data: bytearray, offsets: dict[str, int]) -> None:
    (own,) = struct.unpack_from("<I", data, offsets[LIBRARIES[0]] + 42)
    struct.pack_into("<I", data, offsets[LIBRARIES[1]] + 42, own)


def cut(data: bytearray, offsets: dict[str, int]) -> None:
    del data[offsets["end"] - 20 :]


def no_end(data: bytearray, offsets: dict[str, int]) -> None:
    del data[offsets["end"] :]


def lying_count(data: bytearray, offsets: dict[str, int]) -> None:
    struct.pack_into("<I", data, offsets["end"] + 12, 0x7FFF_FFF0)


def late_directory(data: bytearray, offsets: dict[str, int]) -> None:
    struct.pack_into("<I", data, offsets[LIBRARIES[1]] + 42, len(data) - 40)


def built(build: Build) -> Make:
    return build.wheel


def bomb(folder: Path) -> Path:
    zeros = elf()[:64] + bytes(3 * bounds.MIB)
    return Build({**SOUND.libraries, FIRST: zeros}).wheel(folder)


def renamed(name: str) -> Make:
    return lambda folder: SOUND.wheel(folder, name)


def empty_file(folder: Path) -> Path:
    (folder / WHEEL_NAME).touch()
    return folder / WHEEL_NAME


WHEELS: dict[str, tuple[str, Make]] = {
    "kernels without a record": (
        "no-record",
        lambda folder: write_zip(folder / WHEEL_NAME, SOUND.libraries),
    ),
    "a wheel without kernels": (
        "no-record",
        lambda folder: write_zip(folder / WHEEL_NAME, {"vllm/__init__.py": b""}),
    ),
    "absolute path": ("absolute-path", zip_of({"/etc/cron.d/evil": b"x"})),
    "drive letter": ("absolute-path", zip_of({"C:evil.so": b"x"})),
    "parent path": ("parent-path", zip_of({"vllm/../../evil.so": b"x"})),
    "parent path at the end": ("parent-path", zip_of({"vllm/..": b"x"})),
    "backslash": ("backslash", zip_of({"vllm\\evil.so": b"x"})),
    "control character": ("name", zip_of({"vllm/a\nb.py": b"x"})),
    "empty part": ("name", zip_of({"vllm//_C.abi3.so": b"x"})),
    "dot part": ("name", zip_of({"./vllm/_C.abi3.so": b"x"})),
    "very long name": ("name", zip_of({"vllm/" + "a" * 600: b"x"})),
    "link": ("link", with_info(mode(stat.S_IFLNK), "vllm/_C.so", b"/etc/passwd")),
    "character device": ("special-file", with_info(mode(stat.S_IFCHR))),
    "block device": ("special-file", with_info(mode(stat.S_IFBLK))),
    "pipe": ("special-file", with_info(mode(stat.S_IFIFO))),
    "duplicate": ("duplicate", twice("vllm/a.py", "vllm/a.py")),
    "duplicate library": ("duplicate", twice(FIRST, "vllm/b.py")),
    "case collision": ("case-collision", twice("vllm/_c.ABI3.so", "vllm/b.py")),
    "file and folder of one name": ("case-collision", twice("vllm/A", "vllm/a/")),
    "name outside the package": ("member-name", zip_of({"evil.pth": b"import evil"})),
    "another package": ("member-name", zip_of({"torch/__init__.py": b"x"})),
    "library that no record lists": ("member-name", zip_of({"vllm/_rocm_C.abi3.so": b"x"})),
    "versioned library": ("member-name", zip_of({"vllm/libevil.so.1": b"x"})),
    "encrypted": ("encrypted", patched(put("<H", 8, 1))),
    "strongly encrypted": ("encrypted", patched(put("<H", 8, 0x40))),
    "unknown method": ("method", patched(put("<H", 10, 99))),
    "wrong CRC": ("crc", patched(put("<I", 16, 0xDEADBEEF))),
    "flipped bit": ("crc", patched(flip)),
    "overlapping members": ("overlap", patched(overlap)),
    "member in the directory": ("directory", patched(late_directory)),
    "truncated end": ("directory", patched(no_end)),
    "truncated directory": ("directory", patched(cut)),
    "directory beyond the file": ("directory", patched(lying_count)),
    "size in the directory too large": ("size", patched(put("<I", 24, 1 << 20))),
    "no archive": ("directory", empty_file),
    "zip bomb": ("compression-ratio", bomb),
    "tags of another platform": ("platform", renamed("vllm-0.1.0-cp310-abi3-win_amd64.whl")),
    "wrong sha256 in the record": ("sha256", built(Build(lies={FIRST: {"sha256": "0" * 64}}))),
    "wrong size in the record": ("size", built(Build(lies={FIRST: {"size": 5}}))),
    "negative size": ("size-limit", built(Build(lies={FIRST: {"size": -1}}))),
    "enormous size": ("size-limit", built(Build(lies={FIRST: {"size": 1 << 50}}))),
    "library without bytes": (
        "missing",
        lambda folder: write_zip(
            folder / WHEEL_NAME, {k: v for k, v in members().items() if k != FIRST}
        ),
    ),
    "record that names a file elsewhere": (
        "parent-path",
        zip_of({RECORD: Build({"../evil.so": elf()}).record()}),
    ),
    "record that names a module": (
        "member-name",
        zip_of({RECORD: Build({"vllm/_kernels/loader.py": elf()}).record()}),
    ),
    "record that is no JSON": ("document", zip_of({RECORD: b"{"})),
    "record that is too deep": ("document", zip_of({RECORD: b"[" * 100_000})),
    "record that is a list": ("document", zip_of({RECORD: b"[]"})),
    "record without a digest": ("document", built(Build(facts={"build_digest": None}))),
    "record of another schema": ("document", built(Build(facts={"schema": 9}))),
    "record of another output": ("document", built(Build(facts={"component": "vllm-flashmla"}))),
    "record without extensions": ("document", built(Build(facts={"extensions": None}))),
    "record that is too large": ("size-limit", zip_of({RECORD: b" " * (bounds.DOCUMENT + 1)})),
    "another platform": ("platform", built(Build(facts={"platform": "linux-s390x"}))),
    "another Python ABI": (
        "python-abi",
        built(Build(facts={"python_abi": "cpython-313t-x86_64-linux-gnu"})),
    ),
    "another device": ("device", built(Build(facts={"device": "cuda", "toolkit": "13.0"}))),
    "a toolkit where there is none": ("toolkit", built(Build(facts={"toolkit": "13.0"}))),
    "a later torch": ("torch", built(Build(facts={"torch_target": "2.99"}))),
    "stale digest": ("digest", built(Build(facts={"build_digest": "0" * 64}))),
    "fewer libraries": ("member-name", built(Build({FIRST: elf()}))),
    "library for another processor": (
        "elf",
        built(Build({**SOUND.libraries, FIRST: elf(machine=40)})),
    ),
    "library that is a script": (
        "elf",
        built(Build({**SOUND.libraries, FIRST: b"#!/bin/sh\n" * 50})),
    ),
    "library that is too short": ("elf", built(Build({**SOUND.libraries, FIRST: b"\x7fELF"}))),
}


@pytest.mark.parametrize("case", WHEELS)
def test_wheels(scene: Scene, case: str) -> None:
    check, make = WHEELS[case]
    scene.refused(Settings(precompiled_location=str(make(scene.folder))), check)


@pytest.mark.parametrize("case", WHEELS)
def test_wheels_by_range(scene: Scene, case: str) -> None:
    """The same with a server; the fetched bytes are removed, too."""
    check, make = WHEELS[case]
    path = make(scene.folder)
    with serving() as server:
        server.folder = scene.folder
        # An empty file has no ranges.
        scene.refused(
            Settings(precompiled_location=f"{server.url}/{path.name}"),
            "range" if case == "no archive" else check,
        )


def test_a_pinned_file_of_another_sha256(scene: Scene) -> None:
    path = SOUND.wheel(scene.folder)
    scene.refused(Settings(precompiled_location=str(path), precompiled_sha256="0" * 64), "sha256")
    with serving() as server:
        server.folder = scene.folder
        scene.refused(
            Settings(precompiled_location=f"{server.url}/{path.name}", precompiled_sha256="0" * 64),
            "sha256",
        )


@pytest.mark.parametrize(
    "case",
    [
        "wrong sha256 in the record",
        "character device",
        "link",
        "parent path",
        "record that is no JSON",
    ],
)
def test_a_hostile_wheel_is_not_replaced_by_compiling(scene: Scene, case: str) -> None:
    check, make = WHEELS[case]
    scene.refused(
        Settings(precompiled_location=str(make(scene.folder)), precompiled_partial=True), check
    )


def test_a_sound_wheel_is_reused(scene: Scene) -> None:
    """All hostile wheels are variants of this one."""
    scene.reuse(Settings(precompiled_location=str(SOUND.wheel(scene.folder))))
    assert (scene.tree / FIRST).read_bytes() == SOUND.libraries[FIRST]
