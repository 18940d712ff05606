# SPDX-License-Identifier: Apache-2.0
"""Hostile archives, indexes and servers: each is refused by the check that is named, and leaves tree, cache and store as they were."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
import struct
import tarfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import reuse_server
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from reuse_files import (
    DIGEST,
    KERNEL_DIGEST,
    LIBRARIES,
    MACHINE,
    RECORD,
    WHEEL_NAME,
    Build,
    elf,
    snapshot,
    tar_zst,
    write_channel,
    write_conda,
    write_zip,
)
from reuse_keys import Signer, envelope, signer
from reuse_server import serving

from vllm_build.errors import FetchError
from vllm_build.reuse import bounds, channel, entry, place, plan, publish, remote, sources, statement
from vllm_build.reuse.cache import Cache
from vllm_build.reuse.context import Context
from vllm_build.reuse.refusal import RefusedError
from vllm_build.reuse.transport import Transport
from vllm_build.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    Make = Callable[[Path], Path]
    Spoil = Callable[[Path], None]
    Forge = Callable[[Path, Signer, Signer], None]

SOUND = Build()
FIRST = LIBRARIES[0]


@dataclass
class Scene:
    """A tree with kernels of an earlier build, a cache, and a folder for what is hostile."""

    tree: Path
    context: Context
    folder: Path

    def reuse(self, settings: Settings) -> None:
        """What a build does from the settings to the files in the tree."""
        with self.context.cache.in_use():
            opened = sources.of_settings(self.context, settings)
            try:
                decisions = plan.make([SOUND.wanted()], opened, MACHINE, partial=settings.precompiled_partial)
                (decision,) = decisions
                assert decision.offer is not None
                assert decision.record is not None
                place.place({**decision.offer.libraries(decision.record)}, self.tree)
            finally:
                for source in opened:
                    source.close()

    def refused(self, settings: Settings, check: str) -> RefusedError:
        """Reuse, which must fail in ``check`` and change nothing."""
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


@pytest.fixture(autouse=True)
def short_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wheels of these tests are small: they would come whole with their directory."""
    monkeypatch.setattr(remote, "TAIL", 66 * bounds.KIB)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "user-cache"))
    tree = Build({FIRST: elf(99)}).unpacked(tmp_path / "tree")
    context = Context(Cache(tmp_path / "cache"), Transport(timeout=0.4, attempts=2, pause=0.01))
    with context.cache.in_use():
        pass
    (tmp_path / "hostile").mkdir()
    return Scene(tree, context, tmp_path / "hostile")


def members(**more: bytes) -> dict[str, bytes]:
    return {**SOUND.members(), **more}


def zip_of(more: Mapping[str, bytes]) -> Make:
    return lambda folder: SOUND.wheel(folder, more=more)


def with_info(change: Callable[[zipfile.ZipInfo], None], name: str = "vllm/odd.py", data: bytes = b"x") -> Make:
    """A wheel with one more member, whose directory entry is changed before it is written."""

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
    """A wheel whose bytes are changed; ``change`` gets them with the offsets of the entries in the directory."""

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


def put(layout: str, entry_offset: int, value: int, name: str = FIRST) -> Callable[[bytearray, dict[str, int]], None]:
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
    "kernels without a record": ("no-record", lambda folder: write_zip(folder / WHEEL_NAME, SOUND.libraries)),
    "a wheel without kernels": ("no-record", lambda folder: write_zip(folder / WHEEL_NAME, {"vllm/__init__.py": b""})),
    "absolute path": ("absolute-path", zip_of({"/etc/cron.d/evil": b"x"})),
    "drive letter": ("absolute-path", zip_of({"C:evil.so": b"x"})),
    "parent path": ("parent-path", zip_of({"vllm/../../evil.so": b"x"})),
    "parent path at the end": ("parent-path", zip_of({"vllm/..": b"x"})),
    "backslash": ("backslash", zip_of({"vllm\\evil.so": b"x"})),
    "control character": ("name", zip_of({"vllm/a\nb.py": b"x"})),
    "empty part": ("name", zip_of({"vllm//_C.abi3.so": b"x"})),
    "dot part": ("name", zip_of({"./vllm/_C.abi3.so": b"x"})),
    "name without end": ("name", zip_of({"vllm/" + "a" * 600: b"x"})),
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
    "library without bytes": ("missing", lambda folder: write_zip(folder / WHEEL_NAME, {k: v for k, v in members().items() if k != FIRST})),
    "record that names a file elsewhere": ("parent-path", zip_of({RECORD: Build({"../evil.so": elf()}).record()})),
    "record that names a module": ("member-name", zip_of({RECORD: Build({"vllm/_ops.py": elf()}).record()})),
    "record that is no JSON": ("document", zip_of({RECORD: b"{"})),
    "record that is too deep": ("document", zip_of({RECORD: b"[" * 100_000})),
    "record that is a list": ("document", zip_of({RECORD: b"[]"})),
    "record without a digest": ("document", built(Build(facts={"build_digest": None}))),
    "record of another schema": ("document", built(Build(facts={"schema": 9}))),
    "record of another output": ("document", built(Build(facts={"component": "vllm-flashmla"}))),
    "record without extensions": ("document", built(Build(facts={"extensions": None}))),
    "record that is too large": ("size-limit", zip_of({RECORD: b" " * (bounds.DOCUMENT + 1)})),
    "another platform": ("platform", built(Build(facts={"platform": "linux-s390x"}))),
    "another Python ABI": ("python-abi", built(Build(facts={"python_abi": "cpython-313t-x86_64-linux-gnu"}))),
    "another device": ("device", built(Build(facts={"device": "cuda", "toolkit": "13.0"}))),
    "a toolkit where there is none": ("toolkit", built(Build(facts={"toolkit": "13.0"}))),
    "a later torch": ("torch", built(Build(facts={"torch_target": "2.99"}))),
    "stale digest": ("digest", built(Build(facts={"build_digest": "0" * 64}))),
    "fewer libraries": ("member-name", built(Build({FIRST: elf()}))),
    "library for another processor": ("elf", built(Build({**SOUND.libraries, FIRST: elf(machine=40)}))),
    "library that is a script": ("elf", built(Build({**SOUND.libraries, FIRST: b"#!/bin/sh\n" * 50}))),
    "library that is too short": ("elf", built(Build({**SOUND.libraries, FIRST: b"\x7fELF"}))),
}


@pytest.mark.parametrize("case", WHEELS)
def test_wheels(scene: Scene, case: str) -> None:
    check, make = WHEELS[case]
    scene.refused(Settings(precompiled_location=str(make(scene.folder))), check)


@pytest.mark.parametrize("case", WHEELS)
def test_wheels_by_range(scene: Scene, case: str) -> None:
    """The same through a server: whatever was fetched of it is gone, too."""
    check, make = WHEELS[case]
    path = make(scene.folder)
    with serving() as server:
        server.folder = scene.folder
        # Of an empty file no range can be had.
        scene.refused(Settings(precompiled_location=f"{server.url}/{path.name}"), "range" if case == "no archive" else check)


def special(kind: bytes, name: str = "site-packages/vllm/odd.so", target: str = "/etc/passwd") -> Make:
    def make(folder: Path) -> Path:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        return conda_of([(info, b"")])(folder)

    return make


def conda_of(more: list[tuple[tarfile.TarInfo, bytes]], build: Build = SOUND) -> Make:
    def make(folder: Path) -> Path:
        sound = [(tarfile.TarInfo(f"site-packages/{path}"), data) for path, data in [*build.libraries.items(), (RECORD, build.record())]]
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
        lambda folder: write_zip(folder / "a.conda", {"pkg-a.tar.zst": b"", "pkg-b.tar.zst": b""}, zipfile.ZIP_STORED),
    ),
    "compressed twice": ("method", lambda folder: write_zip(folder / "a.conda", {"pkg-a.tar.zst": b"a" * 500}, zipfile.ZIP_DEFLATED)),
    "library without bytes": ("missing", conda_of([], Build({}, {"extensions": json.loads(SOUND.record())["extensions"]}))),
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
    path = make(scene.folder / channel.subdir())
    package = {
        "name": "vllm-kernels",
        "build": f"cpu_abi3_k{KERNEL_DIGEST[:12]}_h1_0",
        "build_number": 0,
        "sha256": next(iter(snapshot(path.parent).values())),
    }
    write_channel(scene.folder, channel.subdir(), {path.name: package})
    with serving() as server:
        server.folder = scene.folder
        keep = snapshot(scene.tree)
        before = {name for name in snapshot(scene.context.cache.root) if "/blobs/" not in name and "/refs/" not in name}
        with pytest.raises(RefusedError) as caught:
            scene.reuse(Settings(precompiled_stores=(server.url,)))
        assert caught.value.check == check
        assert snapshot(scene.tree) == keep
        # The package itself has the sha256 of the index: the cache keeps it as what it is, and nothing of what was in it.
        after = snapshot(scene.context.cache.root)
        assert {name for name in after if "/blobs/" not in name and "/refs/" not in name} == before
        assert {name.rsplit("/", 1)[1] for name in after if "/blobs/" in name} == {package["sha256"]}


def index(change: Callable[[dict[str, Any]], None]) -> Spoil:
    def spoil(store: Path) -> None:
        path = store / entry.digest_path(DIGEST)
        document = json.loads(path.read_text(encoding="utf-8"))
        change(document)
        path.write_text(json.dumps(document), encoding="utf-8")

    return spoil


def member(key: str, value: Any, number: int = 1) -> Spoil:
    return index(lambda document: document["builds"][0]["members"][number].update({key: value}))


def first(change: Callable[[dict[str, Any]], None]) -> Spoil:
    return index(lambda document: change(document["builds"][0]))


def library(store: Path) -> Path:
    document = json.loads((store / entry.digest_path(DIGEST)).read_text(encoding="utf-8"))
    return store / entry.member_path(document["builds"][0]["members"][1]["sha256"])


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
    (store / entry.MARKER).write_text('{"schema": 2}', encoding="utf-8")


ARCHIVE = {"name": "vllm-1-py3-none-any.whl", "sha256": "0" * 64, "size": 1}
STORES: dict[str, tuple[str, Spoil]] = {
    "another kind": ("index", other_kind),
    "no JSON": ("document", lambda store: (store / entry.digest_path(DIGEST)).write_text("?", encoding="utf-8") and None),
    "too large": ("size-limit", lambda store: (store / entry.digest_path(DIGEST)).write_text(" " * 2_000_000, encoding="utf-8") and None),
    "another digest": ("index", index(lambda document: document.update(digest="0" * 64))),
    "another output": ("index", index(lambda document: document.update(output="vllm-flashmla"))),
    "no builds": ("index", index(lambda document: document.update(builds=[]))),
    "builds that are none": ("document", index(lambda document: document.update(builds=[1]))),
    "archive elsewhere": ("index", first(lambda build: build.update(archive={**ARCHIVE, "name": "../../evil.whl"}))),
    "archive by address": ("index", first(lambda build: build.update(archive={**ARCHIVE, "name": "http://evil/evil.whl"}))),
    "archive that is none": ("document", first(lambda build: build.update(archive="x"))),
    "archive without end": ("size-limit", first(lambda build: build.update(archive={**ARCHIVE, "size": 1 << 60}))),
    "member elsewhere": ("parent-path", member("name", "vllm/../../evil.so")),
    "member that is no library": ("index", member("name", "vllm/_ops.py")),
    "member by a path, not a sha256": ("document", member("sha256", "../../../etc/passwd")),
    "no record": ("index", first(lambda build: build["members"].pop(0))),
    "fewer members than the record": ("index", first(lambda build: build["members"].pop())),
    "another size than the record": ("index", member("size", 7)),
    "another sha256 than the record": ("index", member("sha256", "0" * 64)),
    "damaged member": ("sha256", damage),
    "shortened member": ("size", shorten),
    "lengthened member": ("size", lengthen),
}


@pytest.fixture
def store(scene: Scene) -> Path:
    publish.publish(SOUND.unpacked(scene.folder / "built"), scene.folder / "store", scene.context)
    return scene.folder / "store"


def refused_by_store(scene: Scene, location: str, check: str, key: Path | None = None) -> None:
    """As ``Scene.refused``; what the cache took in meanwhile are files that are what their index said."""
    keep = snapshot(scene.tree, scene.folder)
    with pytest.raises(RefusedError) as caught:
        scene.reuse(Settings(precompiled_stores=(location,), precompiled_key=key))
    assert caught.value.check == check, str(caught.value)
    assert snapshot(scene.tree, scene.folder) == keep
    for name, sha256 in snapshot(scene.context.cache.root / "blobs").items():
        assert name.endswith(sha256)
    assert not snapshot(scene.context.cache.root / "incoming", scene.context.cache.root / "parts")


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
        # A server's files are known by their sha256 alone before they are whole.
        refused_by_store(scene, server.url, "sha256" if case in ("shortened member", "lengthened member") else check)


def about(store: Path) -> statement.Statement:
    """What must be signed of the document as it is."""
    return statement.of_document("vllm-kernels", DIGEST, (store / entry.digest_path(DIGEST)).read_bytes())


def write(store: Path, data: bytes) -> None:
    (store / about(store).path).write_bytes(data)


def raw(data: bytes) -> Forge:
    return lambda store, _own, _other: write(store, data)


def wrapped(change: Callable[[dict[str, Any]], object]) -> Forge:
    """The good envelope, bent."""

    def forge(store: Path, _own: Signer, _other: Signer) -> None:
        document = json.loads((store / about(store).path).read_bytes())
        change(document)
        write(store, json.dumps(document).encode())

    return forge


def signature(**change: Any) -> Forge:
    return wrapped(lambda document: document["signatures"][0].update(change))


def says(data: bytes) -> Forge:
    """A payload that the right key did sign."""
    return lambda store, own, _: write(store, json.dumps(envelope(data, own.key)).encode())


def said(change: Callable[[dict[str, Any]], object]) -> Forge:
    """Another statement that the right key did sign."""

    def forge(store: Path, own: Signer, _: Signer) -> None:
        document = json.loads(about(store).payload())
        change(document)
        says(json.dumps(document).encode())(store, own, own)

    return forge


def marker(change: Callable[[dict[str, Any], Signer], object]) -> Forge:
    """The signer that the store declares, bent."""

    def forge(store: Path, _own: Signer, other: Signer) -> None:
        document = json.loads((store / entry.MARKER).read_text(encoding="utf-8"))
        change(document, other)
        (store / entry.MARKER).write_text(json.dumps(document), encoding="utf-8")

    return forge


def flipped(document: dict[str, Any]) -> None:
    sig = bytearray(base64.b64decode(document["signatures"][0]["sig"]))
    sig[7] ^= 1
    document["signatures"][0]["sig"] = base64.b64encode(sig).decode()


def other_payload(document: dict[str, Any]) -> None:
    """A good signature, under another payload."""
    document["payload"] = base64.b64encode(base64.b64decode(document["payload"]).replace(b"vllm-kernels", b"vllm-flashmla")).decode()


def by_another(store: Path, _: Signer, other: Signer) -> None:
    write(store, statement.sign(about(store), other.key).encode())


def by_another_under_this_id(store: Path, own: Signer, other: Signer) -> None:
    by_another(store, own, other)
    signature(keyid=own.key.public.keyid)(store, own, other)


def by_an_elliptic_curve(store: Path, own: Signer, _: Signer) -> None:
    """Algorithm confusion: what says how a signature is checked is the reader's key alone."""
    sig = ec.generate_private_key(ec.SECP256R1()).sign(about(store).payload(), ec.ECDSA(SHA256()))
    encoded = base64.b64encode(sig).decode()
    signature(sig=encoded, keytype="ecdsa", scheme="ecdsa-sha2-nistp256")(store, own, own)


def bare_payload(store: Path, own: Signer, _: Signer) -> None:
    payload = about(store).payload()
    write(store, json.dumps(envelope(payload, own.key, signed=payload)).encode())


def as_another_type(store: Path, own: Signer, _: Signer) -> None:
    """Signed as bytes of another kind, and said to be a statement."""
    document = envelope(about(store).payload(), own.key, "application/json")
    write(store, json.dumps({**document, "payloadType": statement.PAYLOAD}).encode())


def of_another_type(store: Path, own: Signer, _: Signer) -> None:
    write(store, json.dumps(envelope(about(store).payload(), own.key, "application/json")).encode())


def changed_document(store: Path, _own: Signer, _other: Signer) -> None:
    """Another library for the same digest, consistently: the statement about the document before is still there."""
    library(store).write_bytes(elf(55))
    sha256 = hashlib.sha256(elf(55)).hexdigest()
    path = store / entry.member_path(sha256)
    path.parent.mkdir(exist_ok=True)
    library(store).rename(path)
    index(lambda document: document["builds"][0]["members"][1].update(sha256=sha256))(store)


def statement_of_the_document_before(store: Path, own: Signer, other: Signer) -> None:
    before = (store / about(store).path).read_bytes()
    changed_document(store, own, other)
    (store / about(store).path).parent.mkdir(exist_ok=True)
    write(store, before)


def document_of_another_digest(store: Path, own: Signer, _: Signer) -> None:
    """One that the right key did sign, at the place of this one."""
    other = Build(facts={"build_digest": "0" * 64})
    publish.publish(other.unpacked(store.parent / "other"), store, Context(Cache(store.parent / "cache")), own.key)
    (store / entry.digest_path("0" * 64)).replace(store / entry.digest_path(DIGEST))


SHORT_KEYS = ("a signer with a short key", "a signer with no key")
SIGNED: dict[str, tuple[str, Forge]] = {
    "no statement": ("signature", lambda store, _own, _other: (store / about(store).path).unlink()),
    "empty": ("document", raw(b"")),
    "no JSON": ("document", raw(b"{")),
    "a list": ("document", raw(b"[]")),
    "too deep": ("document", raw(b"[" * 10_000)),
    "too large": ("size-limit", raw(b" " * (bounds.STATEMENT + 1))),
    "no payload": ("document", wrapped(lambda document: document.pop("payload"))),
    "payload that is no text": ("document", wrapped(lambda document: document.update(payload=[1]))),
    "payload not in base64": ("document", wrapped(lambda document: document.update(payload="e30*"))),
    "payload in half of base64": ("document", wrapped(lambda document: document.update(payload="e30"))),
    "payload of no characters": ("document", wrapped(lambda document: document.update(payload="\ud800"))),
    "signature not in base64": ("document", signature(sig="?")),
    "signature that is no text": ("document", signature(sig=1)),
    "signature without an id": ("document", signature(keyid=None)),
    "signatures that are none": ("document", wrapped(lambda document: document.update(signatures=[1]))),
    "signatures by name": ("document", wrapped(lambda document: document.update(signatures={}))),
    "no signatures": ("signature", wrapped(lambda document: document.update(signatures=[]))),
    "the signature twice": ("signature", wrapped(lambda document: document.update(signatures=document["signatures"] * 2))),
    "a flipped bit": ("signature", wrapped(flipped)),
    "a short signature": ("signature", signature(sig="AAAA")),
    "a signature of nothing": ("signature", signature(sig=base64.b64encode(bytes(64)).decode())),
    "another payload": ("signature", wrapped(other_payload)),
    "another key": ("signature", by_another),
    "another key under this id": ("signature", by_another_under_this_id),
    "another algorithm": ("signature", by_an_elliptic_curve),
    "signed without its type": ("signature", bare_payload),
    "signed as another type": ("signature", as_another_type),
    "of another type": ("statement", of_another_type),
    "signed, and no JSON": ("document", says(b"?")),
    "signed, and a list": ("document", says(b"[]")),
    "another kind of statement": ("statement", said(lambda document: document.update(_type="https://in-toto.io/Statement/v0.1"))),
    "no kind of statement": ("statement", said(lambda document: document.pop("_type"))),
    "another predicate": ("statement", said(lambda document: document.update(predicateType=statement.PUBLISH))),
    "no predicate": ("statement", said(lambda document: document.pop("predicate"))),
    "a predicate that is a list": ("statement", said(lambda document: document.update(predicate=[]))),
    "a predicate of another output": ("statement", said(lambda document: document["predicate"].update(output="vllm-flashmla"))),
    "a predicate of another digest": ("statement", said(lambda document: document["predicate"].update(buildDigest="0" * 64))),
    "no subject": ("statement", said(lambda document: document.update(subject=[]))),
    "a subject that is none": ("statement", said(lambda document: document.update(subject=[1]))),
    "a subject by name": ("statement", said(lambda document: document.update(subject=document["subject"][0]))),
    "two subjects": ("statement", said(lambda document: document.update(subject=document["subject"] * 2))),
    "a subject of another name": ("statement", said(lambda document: document["subject"][0].update(name="digests/x.json"))),
    "a subject of another sha256": ("statement", said(lambda document: document["subject"][0].update(digest={"sha256": "0" * 64}))),
    "a subject by another hash": ("statement", said(lambda document: document["subject"][0].update(digest={"md5": "0" * 32}))),
    "a changed document": ("signature", changed_document),
    "a changed document and the statement before": ("statement", statement_of_the_document_before),
    "the document of another digest": ("statement", document_of_another_digest),
    "a store that hides its signer": ("signature", marker(lambda document, _: document.pop("signer"))),
    "a store without a signer's key": ("document", marker(lambda document, _: document.update(signer=None))),
    "another signer": ("signature", marker(lambda document, other: document.update(signer=other.key.public.declared()))),
    "the id of another signer": ("signature", marker(lambda document, other: document["signer"].update(keyid=other.key.public.keyid))),
    "a signer with another algorithm": ("signature", marker(lambda document, _: document["signer"].update(keytype="rsa"))),
    "a signer with another scheme": ("signature", marker(lambda document, _: document["signer"].update(scheme="rsassa-pss-sha256"))),
    "a signer with more to say": ("signature", marker(lambda document, _: document["signer"].update(threshold=0))),
    "a signer with a short key": ("document", marker(lambda document, _: document["signer"]["keyval"].update(public="00"))),
    "a signer with no key": ("document", marker(lambda document, _: document["signer"].update(keyval="x"))),
}


@pytest.fixture
def own(tmp_path: Path) -> Signer:
    return signer(tmp_path / "keys")


def forged(scene: Scene, own: Signer, case: str) -> tuple[str, Path]:
    """The check that must fail, and the store."""
    check, forge = SIGNED[case]
    store = scene.folder / "store"
    publish.publish(SOUND.unpacked(scene.folder / "built"), store, scene.context, own.key)
    forge(store, own, signer(own.public.parent, 2))
    return check, store


@pytest.mark.parametrize("case", SIGNED)
def test_signed_stores(scene: Scene, own: Signer, case: str) -> None:
    check, store = forged(scene, own, case)
    refused_by_store(scene, str(store), check, own.public)


@pytest.mark.parametrize("case", SIGNED)
def test_signed_stores_over_http(scene: Scene, own: Signer, case: str) -> None:
    check, store = forged(scene, own, case)
    with serving() as server:
        server.folder = store
        refused_by_store(scene, server.url, check, own.public)


@pytest.mark.parametrize("case", SIGNED)
def test_signed_stores_that_nobody_vouches_for(scene: Scene, own: Signer, case: str) -> None:
    """Without a key whatever declares a signer is refused, however it is bent; what hides it is a store like any without."""
    _, store = forged(scene, own, case)
    if case == "a store that hides its signer":
        scene.reuse(Settings(precompiled_stores=(str(store),)))
    else:
        refused_by_store(scene, str(store), "document" if case in ("a store without a signer's key", *SHORT_KEYS) else "signature")


def channel_of(package: dict[str, Any], name: str = "vllm-kernels-0.1.0-cpu_0.conda") -> dict[str, Any]:
    return {name: {"name": "vllm-kernels", "build": f"cpu_abi3_k{KERNEL_DIGEST[:12]}_h1_0", "sha256": "0" * 64, **package}}


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
    SOUND.conda(scene.folder / channel.subdir())
    write_channel(scene.folder, channel.subdir(), packages)
    scene.refused(Settings(precompiled_stores=(str(scene.folder),)), check)


def test_a_channel_whose_index_is_none(scene: Scene) -> None:
    write_channel(scene.folder, channel.subdir(), {})
    path = scene.folder / channel.subdir() / "repodata.json"
    path.write_text('{"packages.conda": []}', encoding="utf-8")
    scene.refused(Settings(precompiled_stores=(str(scene.folder),)), "document")


def test_a_pinned_file_of_another_sha256(scene: Scene) -> None:
    path = SOUND.wheel(scene.folder)
    scene.refused(Settings(precompiled_location=str(path), precompiled_sha256="0" * 64), "sha256")
    with serving() as server:
        server.folder = scene.folder
        scene.refused(Settings(precompiled_location=f"{server.url}/{path.name}", precompiled_sha256="0" * 64), "sha256")


@pytest.fixture
def server(scene: Scene) -> Iterator[reuse_server.Server]:
    """Serves a wheel of half a megabyte, which takes several requests."""
    build = Build({name: elf(n, 250_000) for n, name in enumerate(LIBRARIES)})
    with serving() as state:
        state.files["/" + WHEEL_NAME] = build.wheel(scene.folder).read_bytes()
        yield state


def location(server: reuse_server.Server) -> Settings:
    return Settings(precompiled_location=f"{server.url}/{WHEEL_NAME}")


REDIRECTS = ["file:///etc/passwd", "ftp://127.0.0.1/x.whl", "gopher://x/", "data:text/plain,x", "//["]


@pytest.mark.parametrize("target", REDIRECTS)
def test_redirects_to_other_schemes(scene: Scene, server: reuse_server.Server, target: str) -> None:
    server.script = [reuse_server.status(302, Location=target)]
    scene.refused(location(server), "redirect")


def test_redirects_without_end(scene: Scene, server: reuse_server.Server) -> None:
    server.script = [reuse_server.status(301, Location=f"/{WHEEL_NAME}")] * 50
    scene.refused(location(server), "redirect")
    assert len(server.asked) < 10


def test_a_file_that_changes_between_requests(scene: Scene, server: reuse_server.Server) -> None:
    other = bytearray(server.files["/" + WHEEL_NAME])
    other[5000] ^= 1
    server.script = [None, reuse_server.changes(server, "/" + WHEEL_NAME, bytes(other))]
    scene.refused(location(server), "changed")


def test_a_file_that_changes_its_size_on_a_server_without_validators(scene: Scene, server: reuse_server.Server) -> None:
    server.etag = False
    server.script = [None, reuse_server.changes(server, "/" + WHEEL_NAME, server.files["/" + WHEEL_NAME] + b"?")]
    scene.refused(location(server), "changed")


def test_a_file_that_changes_its_bytes_on_a_server_without_validators(scene: Scene, server: reuse_server.Server) -> None:
    server.etag = False
    data = bytearray(server.files["/" + WHEEL_NAME])
    data[5000] ^= 1
    server.script = [None, reuse_server.changes(server, "/" + WHEEL_NAME, bytes(data))]
    scene.refused(location(server), "crc")


@pytest.mark.parametrize(
    ("answer", "check"),
    [
        ({"Content_Range": "bytes 0-9/100"}, "range"),
        ({"Content_Range": "bytes x-y/z"}, "range"),
        ({"Content_Range": ""}, "range"),
        ({"Content_Encoding": "gzip"}, "encoding"),
    ],
)
@pytest.mark.parametrize("at", [0, 1])
def test_answers_to_another_question(scene: Scene, server: reuse_server.Server, at: int, answer: dict[str, str], check: str) -> None:
    server.script = [None] * at + [reuse_server.says(**answer)]
    scene.refused(location(server), check)


def test_a_range_that_is_gone(scene: Scene, server: reuse_server.Server) -> None:
    server.script = [None, reuse_server.status(416)]
    scene.refused(location(server), "range")


def test_a_server_that_honours_one_range_and_ignores_the_next(scene: Scene, server: reuse_server.Server) -> None:
    server.script = [None, reuse_server.ignores_ranges]
    scene.refused(location(server), "changed")
    server.etag, server.script = False, [None, reuse_server.ignores_ranges]
    scene.refused(location(server), "range")


def unreachable(scene: Scene, server: reuse_server.Server) -> FetchError:
    tree = snapshot(scene.tree)
    with pytest.raises(FetchError) as caught:
        scene.reuse(location(server))
    assert snapshot(scene.tree) == tree
    assert not snapshot(scene.context.cache.root / "blobs", scene.context.cache.root / "incoming")
    return caught.value


def test_a_server_that_stalls(scene: Scene, server: reuse_server.Server) -> None:
    server.script = [None, *[reuse_server.stalls(10, 1.0)] * 4]
    assert "attempts in a row" in unreachable(scene, server).message


def test_a_server_that_resets_each_connection(scene: Scene, server: reuse_server.Server) -> None:
    server.script = [None, *[reuse_server.breaks(100, hard=True)] * 40]
    assert "attempts in a row" in unreachable(scene, server).message


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_is_broken(scene: Scene, server: reuse_server.Server, status: int) -> None:
    server.script = [reuse_server.status(status)] * 9
    assert str(status) in unreachable(scene, server).message


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_server_that_refuses(scene: Scene, server: reuse_server.Server, status: int) -> None:
    server.script = [reuse_server.status(status)]
    assert unreachable(scene, server).remedy


@pytest.mark.parametrize("case", ["wrong sha256 in the record", "character device", "link", "parent path", "record that is no JSON"])
def test_nothing_is_compiled_instead_of_what_is_not_sound(scene: Scene, case: str) -> None:
    check, make = WHEELS[case]
    scene.refused(Settings(precompiled_location=str(make(scene.folder)), precompiled_partial=True), check)


def test_the_corpus_is_large_enough() -> None:
    assert len(WHEELS) + len(CONDAS) + len(STORES) + len(SIGNED) >= 100


def test_a_sound_wheel_is_reused(scene: Scene) -> None:
    """What all others are bent from."""
    scene.reuse(Settings(precompiled_location=str(SOUND.wheel(scene.folder))))
    assert (scene.tree / FIRST).read_bytes() == SOUND.libraries[FIRST]
