# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
import zipfile
from typing import TYPE_CHECKING

import pytest
import zstandard
from rattler_build import assemble_package

from vllm_build.conda.environments import conda_environment
from vllm_build.packing import channel_index, normalise
from vllm_build.util.errors import IntegrityError

if TYPE_CHECKING:
    from pathlib import Path


def make(folder: Path, order: list[str]) -> Path:
    payload = folder / "payload"
    (payload / "bin").mkdir(parents=True)
    (payload / "bin" / "tool").write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    (payload / "bin" / "tool").chmod(0o755)
    (payload / "bin" / "alias").symlink_to("tool")
    out = folder / "noarch"
    out.mkdir()
    assemble_package(
        "foo",
        "1.0",
        "noarch",
        "h0_0",
        str(out),
        files_dir=str(payload),
        depends=order,
        noarch="generic",
    )
    (made,) = out.glob("*.conda")
    return made


def members(package: Path, part: str) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    with zipfile.ZipFile(package) as archive:
        (name,) = (n for n in archive.namelist() if n.startswith(part))
        data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(archive.read(name))).read()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = [(member, tar.extractfile(member)) for member in tar.getmembers()]
        return {
            member.name: (member, file.read() if file and member.isfile() else b"")
            for member, file in files
        }


def test_the_number_of_processors_changes_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, found = make(tmp_path, ["a"]), set()
    plain = made.read_bytes()
    for count in (1, 2, 5):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, count=count: set(range(count)))
        made.write_bytes(plain)
        normalise.normalise(made)
        found.add(hashlib.sha256(made.read_bytes()).hexdigest())
    assert len(found) == 1


def test_two_builds_give_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = make(tmp_path / "a", ["x >=1", "y"])
    time.sleep(0.01)
    second = make(tmp_path / "b", ["y", "x >=1"])
    normalise.normalise(first)
    normalise.normalise(second)
    assert first.read_bytes() == second.read_bytes()
    once = first.read_bytes()
    normalise.normalise(first)
    assert first.read_bytes() == once


def test_content_modes_and_links_stay(tmp_path: Path) -> None:
    package = make(tmp_path, [])
    before = members(package, "pkg-")
    normalise.normalise(package)
    after = members(package, "pkg-")
    assert before.keys() == after.keys()
    for name, (member, data) in after.items():
        assert (member.mode, member.type, member.linkname, data) == (
            before[name][0].mode,
            before[name][0].type,
            before[name][0].linkname,
            before[name][1],
        )
        assert member.mtime == normalise.EARLIEST
    index = json.loads(members(package, "info-")["info/index.json"][1])
    assert index["timestamp"] == normalise.EARLIEST * 1000


def test_normalised_package_installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = make(tmp_path, [])
    normalise.normalise(package)
    channel_index.publish([package], tmp_path / "channel")
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    conda_environment.create(tmp_path / "env", ["foo"], [(tmp_path / "channel").as_uri()])
    assert (tmp_path / "env" / "bin" / "alias").resolve().name == "tool"


def test_what_is_no_package_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.conda"
    path.write_bytes(b"no zip")
    with pytest.raises(IntegrityError, match=r"not a \.conda file"):
        normalise.normalise(path)
    assert path.read_bytes() == b"no zip"
    assert list(tmp_path.iterdir()) == [path]


def test_the_time_of_the_caller_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for value in ("", "1", "1700000000", "yesterday"):
        folder = tmp_path / f"at{value}"
        folder.mkdir()
        package = make(folder, [])
        monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
        normalise.normalise(package)
        said.append(package.read_bytes())
    assert len(set(said)) == 1


def test_modes_are_those_of_no_umask(tmp_path: Path) -> None:
    said = []
    for mask in (0o022, 0o077, 0o002):
        folder = tmp_path / f"{mask}"
        folder.mkdir()
        before = os.umask(mask)
        try:
            package = make(folder, [])
            (folder / "payload" / "bin" / "tool").chmod(0o777 & ~mask)
        finally:
            os.umask(before)
        normalise.normalise(package)
        said.append(package.read_bytes())
    assert len(set(said)) == 1


PREFIX_LENGTH = 255


def with_prefix(folder: Path) -> Path:
    """A script, a program and an unrecorded file that contain the prefix of the build."""
    folder.mkdir(parents=True)
    prefix = (str(folder / "host_env") + "_placehold" * 30)[:PREFIX_LENGTH]
    content = {
        "bin/script": f"#!{prefix}/bin/python\n".encode(),
        "bin/program": b"\x7fELF\0" + f"{prefix}/lib".encode() + b"\0end",
    }
    entries = [
        {"_path": name, "path_type": "hardlink", "file_mode": mode, "prefix_placeholder": prefix}
        | {"sha256": hashlib.sha256(content[name]).hexdigest(), "size_in_bytes": len(content[name])}
        for name, mode in (("bin/script", "text"), ("bin/program", "binary"))
    ]
    # rattler-build records a link with the sha256 of its target.
    entries.append(
        {
            "_path": "bin/alias",
            "path_type": "softlink",
            "sha256": entries[0]["sha256"],
            "size_in_bytes": entries[0]["size_in_bytes"],
        }
    )
    info = {
        "info/paths.json": json.dumps({"paths": entries, "paths_version": 1}).encode(),
        "info/index.json": json.dumps(
            {
                "name": "p",
                "version": "1",
                "build": "0",
                "build_number": 0,
                "subdir": "noarch",
                "timestamp": 7,
            }
        ).encode(),
    }
    package = folder / "noarch" / "p-1-0.conda"
    package.parent.mkdir()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("metadata.json", '{"conda_pkg_format_version": 2}')
        for part, files in (("pkg", content), ("info", info)):
            stream = io.BytesIO()
            with tarfile.open(fileobj=stream, mode="w") as tar:
                for name, data in files.items():
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
                if part == "pkg":
                    alias = tarfile.TarInfo("bin/alias")
                    alias.type, alias.linkname = tarfile.SYMTYPE, "script"
                    tar.addfile(alias)
            archive.writestr(f"{part}-p-1-0.tar.zst", zstandard.compress(stream.getvalue()))
    return package


def test_the_prefix_of_the_build_is_replaced_where_an_installer_replaces_it(tmp_path: Path) -> None:
    first, second = (
        with_prefix(tmp_path / "a"),
        with_prefix(tmp_path / "much" / "deeper" / "folder"),
    )
    assert first.read_bytes() != second.read_bytes()
    for package in (first, second):
        normalise.normalise(package)
    assert first.read_bytes() == second.read_bytes()
    files = members(first, "pkg-")
    paths = json.loads(members(first, "info-")["info/paths.json"][1])["paths"]
    *paths, alias = paths
    assert alias["sha256"] == paths[0]["sha256"]
    for entry in paths:
        data = files[entry["_path"]][1]
        assert entry["prefix_placeholder"] == normalise.PLACEHOLDER[:PREFIX_LENGTH]
        assert entry["prefix_placeholder"].encode() in data
        assert str(tmp_path).encode() not in data
        assert (entry["sha256"], entry["size_in_bytes"]) == (
            hashlib.sha256(data).hexdigest(),
            len(data),
        )


def test_a_replaced_prefix_becomes_the_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = with_prefix(tmp_path / "a")
    normalise.normalise(package)
    channel_index.publish([package], tmp_path / "channel")
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    prefix = tmp_path / "env"
    conda_environment.create(prefix, ["p"], [(tmp_path / "channel").as_uri()])
    assert (prefix / "bin" / "script").read_text(encoding="utf-8") == f"#!{prefix}/bin/python\n"
    assert f"{prefix}/lib\0".encode() in (prefix / "bin" / "program").read_bytes()


def test_a_large_package_is_not_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(normalise, "_SPOOLED", 1)
    package = with_prefix(tmp_path / "a")
    other = with_prefix(tmp_path / "b")
    normalise.normalise(package)
    monkeypatch.undo()
    normalise.normalise(other)
    assert package.read_bytes() == other.read_bytes()
