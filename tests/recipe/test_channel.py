# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

import pytest

from vllm_build.conda import package_channel
from vllm_build.conda.environments import conda_environment
from vllm_build.packing import channel_index
from vllm_build.settings.build_settings import Settings
from vllm_build.util.errors import BuildError, ConfigurationError, ToolchainError

if TYPE_CHECKING:
    from pathlib import Path


def make_package(folder: Path, name: str, content: str, *, build: str = "h0_0") -> Path:
    """A real conda package of one text file, written by rattler-build."""
    from rattler_build import assemble_package

    payload = folder / "payload" / name
    payload.mkdir(parents=True, exist_ok=True)
    (payload / f"{name}.txt").write_text(content, encoding="utf-8")
    target = folder / "noarch"
    target.mkdir(parents=True, exist_ok=True)
    assemble_package(
        name=name,
        version="1.0",
        target_platform="noarch",
        build_string=build,
        output_dir=str(target),
        files_dir=str(payload),
    )
    (made,) = target.glob(f"{name}-1.0-{build}.conda")
    return made


def index(folder: Path) -> dict[str, dict[str, str]]:
    return dict(
        json.loads((folder / "noarch" / "repodata.json").read_text(encoding="utf-8"))[
            "packages.conda"
        ]
    )


def test_published_packages_are_indexed_with_their_sha256(tmp_path: Path) -> None:
    package = make_package(tmp_path / "built", "foo", "one")
    (published,) = channel_index.publish([package], tmp_path / "channel")
    assert (
        index(tmp_path / "channel")[package.name]["sha256"]
        == hashlib.sha256(published.read_bytes()).hexdigest()
    )


def test_a_name_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    first, second = (
        make_package(tmp_path / "a", "foo", "one"),
        make_package(tmp_path / "b", "foo", "two"),
    )
    (published,) = channel_index.publish([first], tmp_path / "channel")
    before = published.read_bytes()
    channel_index.publish([second], tmp_path / "channel")
    assert published.read_bytes() == before


def test_no_half_package_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "built").mkdir()
    package = make_package(tmp_path / "built", "foo", "one")

    def interrupted(_: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(channel_index.shutil, "copyfile", interrupted)
        with pytest.raises(KeyboardInterrupt):
            channel_index.publish([package], tmp_path / "channel")
    assert not (tmp_path / "channel" / "noarch" / package.name).exists()
    channel_index.publish([package], tmp_path / "channel")
    assert list(index(tmp_path / "channel")) == [package.name]


def test_a_full_disk_leaves_the_channel_as_it_was(tmp_path: Path) -> None:
    kept, package = (
        make_package(tmp_path / "a", "foo", "one"),
        make_package(tmp_path / "b", "bar", "two"),
    )
    channel_index.publish([kept], tmp_path / "channel")
    # The first name under which the package is written leads to a device that is always full.
    (tmp_path / "channel" / "noarch" / f".{package.name}.new").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        channel_index.publish([package], tmp_path / "channel")
    assert list(index(tmp_path / "channel")) == [kept.name]
    assert not (tmp_path / "channel" / "noarch" / package.name).exists()


def test_an_index_from_entries_is_one_from_files(tmp_path: Path) -> None:
    """The recorded entries, which index the toolchain's channels, equal those of the indexer."""
    package, folder = make_package(tmp_path / "a", "foo", "one"), tmp_path / "channel"
    channel_index.publish([package], folder)
    entries = channel_index.index_entries(folder, [folder / "noarch" / package.name])
    other = tmp_path / "other"
    channel_index.write(other, entries)
    assert index(other) == index(folder)
    assert channel_index.indexed(other) == channel_index.indexed(folder) != {}


def test_an_index_that_says_the_same_stays(tmp_path: Path) -> None:
    channel_index.initialise(tmp_path)
    before = {path: path.stat().st_ino for path in tmp_path.glob("*/repodata.json")}
    channel_index.write(tmp_path, {})
    assert {path: path.stat().st_ino for path in tmp_path.glob("*/repodata.json")} == before
    assert len(before) == 2
    channel_index.write(tmp_path, {"noarch/foo-1-0.conda": {"name": "foo"}})
    changed = [path for path, inode in before.items() if path.stat().st_ino != inode]
    assert changed == [tmp_path / "noarch" / "repodata.json"]


def test_a_package_that_cannot_be_indexed(tmp_path: Path) -> None:
    channel_index.initialise(tmp_path)
    with pytest.raises(BuildError, match=r"foo-1-0\.conda was built but cannot be indexed"):
        channel_index.index_entries(tmp_path, [tmp_path / "noarch" / "foo-1-0.conda"])


def test_environment_from_a_local_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "built").mkdir()
    channel_index.publish([make_package(tmp_path / "built", "foo", "one")], tmp_path / "channel")
    (record,) = conda_environment.create(
        tmp_path / "env", ["foo"], [(tmp_path / "channel").as_uri()]
    )
    assert (record["name"], record["version"], record["build"]) == ("foo", "1.0", "h0_0")
    assert (tmp_path / "env" / "foo.txt").read_text(encoding="utf-8") == "one"


def test_what_cannot_be_solved_is_explained(tmp_path: Path) -> None:
    channel_index.initialise(tmp_path / "channel")
    prefix = tmp_path / "env"
    with pytest.raises(ToolchainError, match="gxx_linux-64") as caught:
        conda_environment.create(prefix, ["gxx_linux-64 12.*"], [(tmp_path / "channel").as_uri()])
    assert "vllm-build toolchain" in (caught.value.remedy or "")
    assert not prefix.exists()


def test_unknown_channel_name() -> None:
    with pytest.raises(ConfigurationError, match="CHANNEL"):
        package_channel.choose("somewhere", Settings())


def test_conda_forge_where_there_is_no_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_channel.shutil, "which", lambda _: None)
    assert (
        package_channel.choose(None, Settings.from_environ(os.environ))
        == package_channel.CONDA_FORGE
    )
    monkeypatch.setattr(package_channel.shutil, "which", lambda _: "/usr/bin/apt-get")
    assert package_channel.choose(None, Settings.from_environ(os.environ)) == package_channel.LOCAL
    assert package_channel.choose("conda-forge", Settings()) == package_channel.CONDA_FORGE
