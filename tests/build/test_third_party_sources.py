# SPDX-License-Identifier: Apache-2.0
"""Locked third-party sources: the cache, the content of archives, and ``vllm-build fetch``."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vllm_build import cli
from vllm_build.commands.packages import fetch
from vllm_build.sources import archive_members, folder_digest, third_party
from vllm_build.sources.third_party import Source
from vllm_build.toolchain import third_party_fetch
from vllm_build.toolchain.download_store import Store
from vllm_build.util.errors import ConfigurationError, IntegrityError
from vllm_build.util.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllm_build.util.console import Console


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def archive(path: Path, *members: tarfile.TarInfo, content: bytes = b"int x;\n") -> Source:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            member.size = len(content) if member.isfile() else 0
            tar.addfile(member, io.BytesIO(content) if member.isfile() else None)
    get = {"type": "apt-source", "suite": "trixie", "package": "highway", "revision": "1.2.0-2"}
    source = Source(
        "highway",
        "1.2.0",
        path.name,
        path.stat().st_size,
        sha256_of(path),
        "0" * 64,
        get,
        ("vllm-kernels",),
    )
    return locked(source, path)


def locked(source: Source, path: Path, **changes: Any) -> Source:
    """The source with ``changes``, locked to the tree of the archive if it may be extracted."""
    source = replace(source, **changes)
    with tempfile.TemporaryDirectory() as folder:
        try:
            archive_members.unpack(source, path, Path(folder))
        except IntegrityError:
            return source
        return replace(source, tree_sha256=folder_digest.digest_of(Path(folder)))


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o600
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def test_extract(tmp_path: Path, cache: Path) -> None:
    members = (
        member("hw-1/", tarfile.DIRTYPE),
        member("hw-1/CMakeLists.txt"),
        member("hw-1/hwy/", tarfile.DIRTYPE),
        member("hw-1/hwy/a.h"),
        member("hw-1/run.sh", mode=0o700),
        member("hw-1/docs", tarfile.SYMTYPE, "hwy"),
    )
    source = archive(tmp_path / "a.tar.gz", *members)
    folder = third_party.extract(source, tmp_path / "a.tar.gz")
    assert source.cached() == folder
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*")) == [
        "CMakeLists.txt",
        "hwy",
        "hwy/a.h",
        "run.sh",
    ]
    assert (folder / "hwy" / "a.h").read_bytes() == b"int x;\n"
    assert oct((folder / "run.sh").stat().st_mode)[-3:] == "755"
    assert oct((folder / "hwy" / "a.h").stat().st_mode)[-3:] == "644"
    assert third_party.extract(source, tmp_path / "a.tar.gz") == folder, (
        "another process was faster"
    )
    assert [p.name for p in (cache / "sources").iterdir()] == [folder.name]


def test_a_part_of_an_archive(tmp_path: Path) -> None:
    names = ("x-1/a/one.h", "x-1/a/deep/two.h", "x-1/ab/three.h", "x-1/LICENSE", "x-1/LICENSE.more")
    whole = archive(tmp_path / "a.tar.gz", *(member(name) for name in names))
    part = locked(whole, tmp_path / "a.tar.gz", include=("a", "LICENSE"))
    assert part.folder != whole.folder
    folder = third_party.extract(part, tmp_path / "a.tar.gz")
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == [
        "LICENSE",
        "a/deep/two.h",
        "a/one.h",
    ]
    evil = archive(tmp_path / "b.tar.gz", member("x-1/a/one.h"), member("x-1/b/../../x"))
    with pytest.raises(IntegrityError, match="must not be extracted"):
        third_party.extract(replace(evil, include=("a",)), tmp_path / "b.tar.gz")


@pytest.mark.parametrize(
    "evil",
    [
        member("/etc/passwd"),
        member("hw-1/../../x"),
        member("hw-1/device", tarfile.CHRTYPE),
        member("hw-1/fifo", tarfile.FIFOTYPE),
        member("hw-1/hard", tarfile.LNKTYPE, "hw-1/a"),
    ],
    ids=lambda info: info.name,
)
def test_what_must_not_be_extracted(tmp_path: Path, cache: Path, evil: tarfile.TarInfo) -> None:
    source = archive(tmp_path / "a.tar.gz", member("hw-1/a"), evil)
    with pytest.raises(IntegrityError, match="must not be extracted"):
        third_party.extract(source, tmp_path / "a.tar.gz")
    assert list((cache / "sources").iterdir()) == []


def test_a_link_in_a_chosen_part_is_refused(tmp_path: Path) -> None:
    """Without it, the part would lack a file without a message."""
    path = tmp_path / "a.tar.gz"
    source = archive(path, member("x-1/a/one.h"), member("x-1/a/two.h", tarfile.SYMTYPE, "one.h"))
    with pytest.raises(IntegrityError, match=r"the link a/two\.h in a part that is extracted"):
        third_party.extract(replace(source, include=("a",)), path)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("hw-1/a", "hw-1/a"), "cannot be unpacked"),
        (("hw-1/a", "hw-1//a"), "cannot be unpacked"),
        (("hw-1/a", "hw-1/a/b"), "cannot be unpacked"),
        (("hw-1/a/b", "hw-1/a"), "cannot be unpacked"),
        (("hw-1/a", "hw-2/b"), "several folders at its top"),
        (("hw-1/" + "a" * 300,), "cannot be unpacked"),
        (("hw-1/a\0b",), "cannot be unpacked"),
    ],
    ids=["twice", "two spellings", "below a file", "a folder", "two tops", "long", "nul"],
)
def test_members_that_no_folder_can_have(
    tmp_path: Path, cache: Path, names: tuple[str, ...], words: str
) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            info = member(name)
            info.pax_headers = {"path": name}
            tar.addfile(info)
    source = replace(archive(tmp_path / "b.tar.gz"), filename=path.name, sha256=sha256_of(path))
    with pytest.raises(IntegrityError, match=words):
        third_party.extract(source, path)
    assert list((cache / "sources").iterdir()) == []


def test_damaged_and_strange_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tar.gz"
    source = archive(path, member("hw-1/a"))
    with pytest.raises(IntegrityError, match="has sha256"):
        third_party.extract(replace(source, sha256="0" * 64), path)
    twice = archive(path, member("hw-1/a"), member("hw-1/a"))
    with pytest.raises(IntegrityError, match="cannot be unpacked"):
        third_party.extract(twice, path)
    path.write_bytes(b"no archive")
    with pytest.raises(IntegrityError, match="cannot be unpacked"):
        third_party.extract(replace(source, sha256=sha256_of(path)), path)
    large = archive(path, member("hw-1/a"), member("hw-1/b"), content=bytes(2000))
    monkeypatch.setattr(archive_members, "_MAX_BYTES", 3000)
    with pytest.raises(IntegrityError, match="implausible amount of data"):
        third_party.extract(large, path)


@pytest.fixture
def downloaded(tmp_path: Path, cache: Path) -> Callable[[], Source]:
    """A source whose archive is in the download cache already."""

    def make() -> Source:
        path = tmp_path / "highway.tar.gz"
        source = archive(path, member("hw-1/CMakeLists.txt"))
        target = Store(cache / "downloads").path(third_party_fetch._locked_file(source))
        target.parent.mkdir(parents=True)
        path.rename(target)
        return source

    return make


def test_fetch(downloaded: Callable[[], Source], console: Console) -> None:
    source = downloaded()
    folder = third_party_fetch.fetch(source, console, os.environ)
    assert (Path(folder) / "CMakeLists.txt").is_file()
    assert third_party_fetch.fetch(source, console, os.environ) == folder


def _edit(folder: Path) -> None:
    (folder / "CMakeLists.txt").write_bytes(b"int y;\n")


def _same_size_and_time(folder: Path) -> None:
    path = folder / "CMakeLists.txt"
    before = path.stat()
    path.write_bytes(b"int y;\n"[: before.st_size])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _remove(folder: Path) -> None:
    (folder / "CMakeLists.txt").unlink()


def _add(folder: Path) -> None:
    (folder / "more.h").write_bytes(b"")


def _link(folder: Path) -> None:
    (folder / "CMakeLists.txt").rename(folder.parent / "elsewhere")
    (folder / "CMakeLists.txt").symlink_to(folder.parent / "elsewhere")


def _link_a_folder(folder: Path) -> None:
    (folder.parent / "other").mkdir()
    (folder / "more").symlink_to(folder.parent / "other")


def _make_executable(folder: Path) -> None:
    (folder / "CMakeLists.txt").chmod(0o755)


@pytest.mark.parametrize(
    "damage", [_edit, _same_size_and_time, _remove, _add, _link, _link_a_folder, _make_executable]
)
def test_changed_sources_are_refused_and_repaired(
    downloaded: Callable[[], Source],
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
) -> None:
    source = downloaded()
    folder = Path(third_party_fetch.fetch(source, console, os.environ))
    damage(folder)
    monkeypatch.setattr(third_party, "read", lambda _: {"highway": source})
    with pytest.raises(IntegrityError, match="not the locked ones") as caught:
        third_party.folder(folder, "highway", None)
    assert "vllm-build fetch highway" in (caught.value.remedy or "")
    assert third_party.folder(folder, "highway", folder) == folder, (
        "the user's own sources are not compared"
    )
    assert third_party_fetch.fetch(source, console, os.environ) == str(folder)
    assert third_party.folder(folder, "highway", None) == folder
    assert (folder / "CMakeLists.txt").read_bytes() == b"int x;\n"


def test_an_archive_that_gives_another_tree_is_refused(
    downloaded: Callable[[], Source], console: Console, cache: Path
) -> None:
    source = replace(downloaded(), tree_sha256="0" * 64)
    with pytest.raises(IntegrityError, match="unpacks to a tree with sha256") as caught:
        third_party_fetch.fetch(source, console, os.environ)
    assert third_party.LOCK in (caught.value.remedy or "")
    assert list((cache / "sources").glob("highway*")) == []


def test_the_order_of_a_folder_does_not_count(tmp_path: Path) -> None:
    names = ("b/z.h", "a.h", "b/a.h", "ab")
    for order, folder in ((names, tmp_path / "1"), (names[::-1], tmp_path / "2")):
        for name in order:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(name.encode())
    assert folder_digest.digest_of(tmp_path / "1") == folder_digest.digest_of(tmp_path / "2")


def test_an_sdist(tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "index"
    index.mkdir()
    text = b"Metadata-Version: 2.1\nName: sample\nVersion: 1.0\n"
    names = ("sample-1.0/PKG-INFO", "sample-1.0/setup.py", "sample-1.0/a/x.h")
    source = archive(index / "sample-1.0.tar.gz", *(member(name) for name in names), content=text)
    get = {"type": "pypi-sdist", "package": "sample", "version": "1.0"}
    source = locked(source, index / "sample-1.0.tar.gz", name="sample", get=get, include=("a",))
    for name, value in {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
    }.items():
        monkeypatch.setenv(name, value)
    folder = Path(third_party_fetch.fetch(source, console, os.environ))
    assert [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()] == ["a/x.h"]


def test_another_way_than_these(downloaded: Callable[[], Source], console: Console) -> None:
    with pytest.raises(ConfigurationError, match="has the unknown type 'carrier pigeon'") as caught:
        third_party_fetch.fetch(
            replace(downloaded(), get={"type": "carrier pigeon"}), console, os.environ
        )
    assert "HIGHWAY_SRC_DIR" in (caught.value.remedy or "")


def test_the_command(
    downloaded: Callable[[], Source],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = downloaded()
    monkeypatch.setattr(third_party, "read", lambda _: {"highway": source})
    assert cli.main(["fetch", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"highway": str(source.folder)}
    assert cli.main(["fetch", "highway"]) == 0
    assert cli.main(["fetch", "lowway"]) == ConfigurationError.exit_code
    assert "has no 'lowway'" in capsys.readouterr().err


def test_what_is_fetched_on_request_alone(
    monkeypatch: pytest.MonkeyPatch, downloaded: Callable[[], Source], root: Path
) -> None:
    assert third_party.read(root)["flash-attention"].on_request
    source = downloaded()
    monkeypatch.setattr(
        third_party,
        "read",
        lambda _: {"highway": source, "large": replace(source, name="large", on_request=True)},
    )
    fetched: list[str] = []
    monkeypatch.setattr(fetch, "fetch", lambda source, *_: fetched.append(source.name))
    assert cli.main(["fetch"]) == 0
    assert cli.main(["fetch", "large"]) == 0
    assert fetched == ["highway", "large"]
