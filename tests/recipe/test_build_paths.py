# SPDX-License-Identifier: Apache-2.0
"""No package may contain a path of the build machine: which paths are found in which files."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import marshal
import tarfile
import tempfile
import zipfile
from typing import TYPE_CHECKING

import pytest
import zstandard

from vllm_build.packing import build_paths, finish
from vllm_build.util.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WORK = "/somewhere/cache/work/toolchain/x"


def tar_of(content: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return stream.getvalue()


def zip_of(content: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return stream.getvalue()


def package(
    folder: Path,
    content: dict[str, bytes],
    *,
    info: dict[str, bytes] | None = None,
    links: dict[str, str] | None = None,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "p-1-h0_0.conda"
    documents = {
        "info/index.json": json.dumps(
            {"name": "p", "version": "1", "build": "h0_0", "build_number": 0, "subdir": "noarch"}
        ).encode(),
        "info/paths.json": json.dumps({"paths": [], "paths_version": 1}).encode(),
        **(info or {}),
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", '{"conda_pkg_format_version": 2}')
        archive.writestr("pkg-p-1-h0_0.tar.zst", zstandard.compress(tar_of(content, links)))
        archive.writestr("info-p-1-h0_0.tar.zst", zstandard.compress(tar_of(documents)))
    return path


FORBIDDEN = (build_paths.Root(WORK.encode()),)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: text,
        lambda text: b"\x7fELF\0\xf5\xff" + text + b"\0rest",
        lambda text: b"#!" + text + b"/bin/python\n",
        lambda text: b"CFLAGS=-I" + text + b" -O2",
        lambda text: b'"-ffile-prefix-map=' + text + b'=x"',
        lambda text: b'{"url": "file://' + text + b'"}',
        lambda text: b"/" + text,
        lambda text: marshal.dumps(compile("x = 1", text.decode() + "/lib/x.py", "exec")),
        gzip.compress,
        lzma.compress,
        zstandard.compress,
        lambda text: zip_of({"a/b.py": text}),
        lambda text: zip_of({"inner.tar": tar_of({"deep.gz": gzip.compress(text)})}),
        lambda text: tar_of({"x": b""}, {"link": text.decode() + "/x"}),
    ],
)
def test_a_path_of_the_build_is_found(wrap: Callable[[bytes], bytes], tmp_path: Path) -> None:
    data = wrap(f"{WORK}/out/bld/a.cc".encode())
    made = package(tmp_path, {"share/clean.txt": b"nothing", "lib/thing": data})
    with pytest.raises(BuildError) as caught:
        build_paths.check(made, FORBIDDEN)
    assert caught.value.message.startswith(f"p-1-h0_0.conda names a folder of this machine: {WORK}")
    assert "in lib/thing" in caught.value.message


def test_metadata_and_links_are_searched_too(tmp_path: Path) -> None:
    about = package(
        tmp_path / "a",
        {},
        info={"info/about.json": json.dumps({"channels": [f"file://{WORK}/channel/"]}).encode()},
    )
    with pytest.raises(BuildError, match=r"in info/about\.json"):
        build_paths.check(about, FORBIDDEN)
    link = package(tmp_path / "b", {}, links={"bin/link": f"{WORK}/bin/x"})
    with pytest.raises(BuildError, match="in bin/link"):
        build_paths.check(link, FORBIDDEN)


@pytest.mark.parametrize(
    "text",
    [
        "/opt" + WORK,
        WORK + "y/z",
        WORK.removeprefix("/"),
        "https://example.org/docs" + WORK,
        "/usr/lib/python3",
    ],
)
def test_another_path_that_only_looks_like_it_is_none(text: str, tmp_path: Path) -> None:
    build_paths.check(package(tmp_path, {"lib/thing": b"a " + text.encode() + b" b"}), FORBIDDEN)


def test_what_cannot_be_opened_is_searched_as_it_is(tmp_path: Path) -> None:
    broken = {
        f"x.{n}": magic + b"garbage"
        for n, magic in enumerate(
            (b"\x1f\x8b", b"BZh", b"PK\x03\x04", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
        )
    }
    build_paths.check(package(tmp_path / "a", broken), FORBIDDEN)
    with pytest.raises(BuildError):
        build_paths.check(
            package(tmp_path / "b", {"x.gz": b"\x1f\x8b " + WORK.encode()}), FORBIDDEN
        )


def test_cache_checkout_home_and_temporary_folder_are_forbidden(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, temporary = tmp_path / "home", tmp_path / "scratch"
    for folder in (home / ".local" / "src", temporary):
        folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    forbidden = build_paths.roots(tmp_path / "work")
    for path in (
        tmp_path / "work/a",
        tmp_path / "cache/b",
        root / "csrc",
        temporary / "cc123.o",
        home / ".local/src",
        home / ".local/gone.c",
    ):
        assert build_paths.find(f"x {path} y".encode(), forbidden) == str(path)
    # A home folder upstream may have had the same name.
    for path in (
        home,
        home / "work" / "upstream.c",
        home / "unknown",
        home / ".local" / ("x" * 4000) / "y",
    ):
        assert build_paths.find(f"x {path} y".encode(), forbidden) is None


def test_a_folder_with_a_common_name_is_no_hit_unless_it_is_there() -> None:
    forbidden = (build_paths.Root(b"/usr", existing=True),)
    assert build_paths.find(b"see /usr", forbidden) is None
    assert build_paths.find(b"see /usr/nothing/of/that/name", forbidden) is None
    assert build_paths.find(b"see /usr/bin/env", forbidden) == "/usr/bin/env"


def test_a_link_to_the_cache_has_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "cache").symlink_to("disk")
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    forbidden = build_paths.roots()
    for name in ("cache", "disk"):
        assert build_paths.find(str(tmp_path / name / "x").encode(), forbidden)


def test_a_refused_package_goes_no_further(tmp_path: Path) -> None:
    good, bad = (
        package(tmp_path / "good", {"x": b"fine"}),
        package(tmp_path / "bad", {"x": str(tmp_path / "bad").encode()}),
    )
    finish.finish([good], tmp_path / "bad")
    with pytest.raises(BuildError, match="names a folder of this machine"):
        finish.finish([good, bad], tmp_path / "bad")
