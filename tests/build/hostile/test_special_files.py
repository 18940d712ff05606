# SPDX-License-Identifier: Apache-2.0
"""FIFOs, devices, folders, sockets and huge files are refused at once, and never read.

They are tried at every place that a user or a store names.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest
import reuse_keys
from reuse_files import DIGEST, WHEEL_NAME, write_channel
from reuse_scene import SOUND, Scene, library

from vllm_build import cli
from vllm_build.checks import elf
from vllm_build.conda import variants
from vllm_build.kernels import kernels_table, op_table
from vllm_build.packing import channel_index
from vllm_build.project import distribution_version
from vllm_build.reuse.lookup import kernel_channel
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import (
    signed_statement,
    signer_keys,
    store_check,
    store_entry,
    store_publish,
)
from vllm_build.settings.build_settings import Settings
from vllm_build.sources import third_party
from vllm_build.toolchain import toolchain_lock
from vllm_build.util import files
from vllm_build.util.errors import BuildError, ConfigurationError
from vllm_build.wheels import requirements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Make = Callable[[Path], object]

#: Above every limit; a sparse file of this size needs no block on the disk.
HUGE = 20 << 30


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """Fail after a minute: reading a FIFO waits forever, and reading a device exhausts memory."""

    def expired(*_: object) -> None:
        raise TimeoutError("an endless file was read")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(HUGE)


def bound(path: Path) -> None:
    """Create a socket in the file system; a socket's address has a short maximum length."""
    here = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


KINDS: dict[str, Make] = {
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a FIFO": os.mkfifo,
    "a folder": lambda path: path.mkdir(),
    "a socket": bound,
}
EVERY: dict[str, Make] = {**KINDS, "20 GiB": sparse}


def replace(path: Path, make: Make) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    make(path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_one_function_opens(tmp_path: Path, kind: str) -> None:
    path = replace(tmp_path / "x", KINDS[kind])
    readers: tuple[Callable[[Path], object], ...] = (
        files.open_regular,
        files.read_bytes,
        files.read_text,
        files.sha256_of,
        lambda p: files.copy_regular(p, tmp_path / "y", 9),
    )
    for read in readers:
        with pytest.raises(files.NotRegularError, match=f"it is {kind}, not a regular file"):
            read(path)
    assert not (tmp_path / "y").exists()


def test_a_file_that_is_replaced_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_text("text", encoding="utf-8")
    real = os.open
    monkeypatch.setattr(
        files.os, "open", lambda name, flags: (replace(path, os.mkfifo), real(name, flags))[1]
    )
    with pytest.raises(files.NotRegularError, match="a FIFO"):
        files.open_regular(path)


def test_sizes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    link = tmp_path / "link"
    link.symlink_to(path)
    assert files.read_bytes(link, 5) == b"12345"
    with pytest.raises(
        files.TooLargeError, match="it has 5 bytes, and files of its kind have at most 4"
    ):
        files.read_bytes(path, 4)
    with pytest.raises(files.TooLargeError, match=str(HUGE)):
        files.read_bytes(replace(path, sparse))
    files.copy_regular(link, tmp_path / "copy", 4)
    assert (tmp_path / "copy").stat().st_size == 5, (
        "one byte more than the limit, so that the caller notices"
    )
    path.write_bytes(b"a\r\nb\rc")
    assert files.read_text(path) == "a\nb\nc"


#: The files that reuse reads from a store.
PLACES: dict[str, Callable[[Path], Path]] = {
    "marker": lambda store: store / store_entry.MARKER,
    "document": lambda store: store / store_entry.digest_path(DIGEST),
    "record": lambda store: (
        store / store_entry.member_path(files.hashlib.sha256(SOUND.record()).hexdigest())
    ),
    "library": library,
}


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("place", PLACES)
def test_stores(scene: Scene, store: Path, place: str, kind: str) -> None:
    replace(PLACES[place](store), EVERY[kind])
    with pytest.raises(RefusedError) as caught:
        scene.reuse(Settings(precompiled_stores=(str(store),)))
    assert caught.value.check in ("file-kind", "size-limit", "size")


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("place", PLACES)
def test_store_check(scene: Scene, store: Path, place: str, kind: str) -> None:
    replace(PLACES[place](store), EVERY[kind])
    if place == "marker":
        with pytest.raises(RefusedError, match=r"not a regular file|bytes"):
            store_check.check(store, scene.context)
    else:
        assert store_check.check(store, scene.context).problems


@pytest.mark.parametrize("kind", EVERY)
def test_statements(scene: Scene, kind: str) -> None:
    own = reuse_keys.signer(scene.folder)
    store = scene.folder / "signed"
    store_publish.publish(SOUND.unpacked(scene.folder / "built"), store, scene.context, own.key)
    data = (store / store_entry.digest_path(DIGEST)).read_bytes()
    replace(store / signed_statement.of_document(SOUND.output, DIGEST, data).path, EVERY[kind])
    with pytest.raises(RefusedError) as caught:
        scene.reuse(Settings(precompiled_stores=(str(store),), precompiled_key=own.public))
    assert caught.value.check in ("file-kind", "size-limit")
    assert store_check.check(store, scene.context).problems


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [WHEEL_NAME, "vllm-kernels-0.1.0-cpu_0.conda"])
@pytest.mark.parametrize("sha256", [None, "0" * 64])
def test_archives(scene: Scene, kind: str, name: str, sha256: str | None) -> None:
    path = replace(scene.folder / name, KINDS[kind])
    scene.refused(Settings(precompiled_location=str(path), precompiled_sha256=sha256), "file-kind")
    if kind != "a folder":
        with pytest.raises(RefusedError, match="not a regular file"):
            store_publish.publish(path, scene.folder / "store", scene.context)


@pytest.mark.parametrize("kind", EVERY)
def test_indexes_of_channels(scene: Scene, tmp_path: Path, kind: str) -> None:
    folder = write_channel(tmp_path / "channel", kernel_channel.subdir(), {})
    replace(folder / kernel_channel.subdir() / "repodata.json", EVERY[kind])
    with pytest.raises(RefusedError) as caught:
        scene.reuse(Settings(precompiled_stores=(str(folder),)))
    assert caught.value.check in ("file-kind", "size-limit")
    assert channel_index.indexed(folder) == {}


@pytest.mark.parametrize("kind", EVERY)
def test_keys(tmp_path: Path, kind: str) -> None:
    path = replace(tmp_path / "key.pem", EVERY[kind])
    for load in (signer_keys.load_public, signer_keys.load_private):
        with pytest.raises(ConfigurationError, match=r"key\.pem: it (is|has)"):
            load(path)


#: Files of a tree, and the functions that read them.
TREE: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "variant": ("variants/mine.yaml", lambda root: variants.load(root, "mine")),
    "variant by path": ("mine.yaml", lambda root: variants.load(root, str(root / "mine.yaml"))),
    "third-party lock": (third_party.LOCK, third_party.read),
    "toolchain lock": ("toolchain/lock.toml", toolchain_lock.read),
    "kernels": (kernels_table.TABLE, kernels_table.load),
    "ops": (
        "csrc/bindings/norm.cc",
        lambda root: op_table.registrations(root / "csrc/bindings/norm.cc"),
    ),
    "requirements": ("requirements/cpu.txt", lambda root: requirements.read(root, "cpu")),
    "version": ("VERSION", distribution_version.base_version),
    "metadata": (
        "PKG-INFO",
        lambda root: (
            distribution_version.unpacked_version(root) or distribution_version.base_version(root)
        ),
    ),
}


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("case", TREE)
def test_files_of_a_tree(tmp_path: Path, case: str, kind: str) -> None:
    name, read = TREE[case]
    (tmp_path / "variants").mkdir()
    replace(tmp_path / name, EVERY[kind])
    with pytest.raises(ConfigurationError):
        read(tmp_path)


@pytest.mark.parametrize("kind", EVERY)
def test_libraries_that_are_read(tmp_path: Path, kind: str) -> None:
    path = replace(tmp_path / "x.so", EVERY[kind])
    with pytest.raises(BuildError, match="is not a valid library"):
        elf.read(path)


@pytest.mark.parametrize("kind", EVERY)
def test_commands_end(
    tmp_path: Path,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    """Commands end with an error message and a documented status."""
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    special = replace(tmp_path / "x.yaml", EVERY[kind])
    wheel = replace(tmp_path / WHEEL_NAME, EVERY[kind])
    replace(store / store_entry.MARKER, EVERY[kind])
    for words in (
        ["store", "check", str(store)],
        ["publish", "--store", str(tmp_path / "s"), str(store)],
        ["publish", "--store", str(store), str(store)],
        ["publish", "--store", str(tmp_path / "s"), "--key", str(special), str(store)],
        ["audit", str(wheel), "--device", "cpu"],
        ["render", str(special)],
    ):
        # The exit statuses in the documentation.
        assert cli.main(words) in range(2, 11), words
        said = capsys.readouterr().err
        assert "error: " in said
        assert "Traceback" not in said
