# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import tarfile
import time
import zipfile
from typing import TYPE_CHECKING

import pytest
import zstandard
from rattler_build import assemble_package

from vllm_build.conda import channel, environment, normalise
from vllm_build.errors import ConfigurationError, IntegrityError

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
    assemble_package("foo", "1.0", "noarch", "h0_0", str(out), files_dir=str(payload), depends=order, noarch="generic")
    (made,) = out.glob("*.conda")
    return made


def members(package: Path, part: str) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    with zipfile.ZipFile(package) as archive:
        (name,) = (n for n in archive.namelist() if n.startswith(part))
        data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(archive.read(name))).read()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {m.name: (m, (tar.extractfile(m).read() if m.isfile() else b"")) for m in tar.getmembers()}  # type: ignore[union-attr]


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
    channel.publish([package], tmp_path / "channel")
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    environment.create(tmp_path / "env", ["foo"], [(tmp_path / "channel").as_uri()])
    assert (tmp_path / "env" / "bin" / "alias").resolve().name == "tool"


def test_what_is_no_package_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.conda"
    path.write_bytes(b"no zip")
    with pytest.raises(IntegrityError, match=r"not a \.conda file"):
        normalise.normalise(path)
    assert path.read_bytes() == b"no zip"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", ["yesterday", "-1", "12", "1e9"])
def test_malformed_epoch(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
    with pytest.raises(ConfigurationError, match="SOURCE_DATE_EPOCH"):
        normalise.epoch()


def test_epoch_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert normalise.epoch() == 1_700_000_000
