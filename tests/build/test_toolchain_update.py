# SPDX-License-Identifier: Apache-2.0
"""What an update writes into the lock, given the answers of apt-cache and pip."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from vllm_build.toolchain import lock_update, toolchain_builds
from vllm_build.toolchain.locked_files import Fetcher
from vllm_build.toolchain.toolchain_builds import AptSource, AptSourcePackage, Build, PypiSource
from vllm_build.util.errors import ConfigurationError, FetchError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vllm_build.toolchain.debian_suites import ListGroup
    from vllm_build.util.console import Console

MADISON = """\
 libone | 1.0-1 | http://mirror.example/debian bookworm/main amd64 Packages
 libone | 1.0-2 | http://mirror.example/debian bookworm/main amd64 Packages
 libone | 9.0-1 | http://mirror.example/debian trixie/main amd64 Packages
 libone | 1.0-2 | http://mirror.example/debian trixie/non-free amd64 Packages
    one | 1.0-2 | http://mirror.example/debian bookworm/main Sources
"""
SHOW = """\
Package: libone
Version: 1.0-2
Filename: pool/main/o/one/libone_1.0-2_amd64.deb
Size: 11
SHA256: {one}
Description: the first
 and its second line
"""
SHOWSRC = """\
Package: one
Version: 1.0-2
Checksums-Sha256:
 {dsc} 5 one_1.0-2.dsc
 {tar} 7 one_1.0.orig.tar.xz

Package: one
Version: 1.0-1
Checksums-Sha256:
 {dsc} 5 one_1.0-1.dsc
"""
ONE, DSC, TAR = (letter * 64 for letter in "abc")


@dataclass
class Apt:
    """apt-cache with three packages; it records the requests."""

    asked: list[tuple[str, ...]] = field(default_factory=list)
    refreshed: int = 0
    groups: list[str] = field(default_factory=list)

    def refresh(self, *, force: bool = False) -> None:
        assert force, "an update always refreshes the lists"
        self.refreshed += 1

    def show(self, arguments: Sequence[str]) -> str:
        self.asked.append(tuple(arguments))
        return {
            "madison": MADISON,
            "show": SHOW.format(one=ONE),
            "showsrc": SHOWSRC.format(dsc=DSC, tar=TAR),
        }[arguments[0]]


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch) -> Apt:
    apt = Apt()

    def of_group(_: Fetcher, group: ListGroup) -> Apt:
        apt.groups.append(group.name)
        return apt

    monkeypatch.setattr(Fetcher, "apt", of_group)
    return apt


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which pip looks for files: wheels `low` 1.0, 2.0 and 2.0+cpu."""
    folder = tmp_path / "index"
    folder.mkdir()
    for version in ("1.0", "2.0", "2.0+cpu"):
        with zipfile.ZipFile(folder / f"low-{version}-py3-none-any.whl", "w") as archive:
            archive.writestr(
                f"low-{version}.dist-info/METADATA",
                f"Metadata-Version: 2.1\nName: low\nVersion: {version}\n",
            )
            archive.writestr(
                f"low-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n"
            )
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def build(tmp_path: Path, name: str, *given: toolchain_builds.Source) -> Build:
    return Build(id=name, folder=tmp_path / name, needs=(), sources=given, variant={})


@pytest.fixture
def fetcher(tmp_path: Path, console: Console) -> Fetcher:
    return Fetcher(tmp_path / "cache", console, os.environ)


def test_debian_packages_are_locked_as_the_suite_has_them(
    tmp_path: Path, fetcher: Fetcher, apt: Apt
) -> None:
    (file,) = lock_update.resolve(
        [build(tmp_path, "x", AptSource("bookworm", ("libone",)))], fetcher
    )
    assert (file.build, file.type, file.name, file.version, file.suite) == (
        "x",
        "apt",
        "libone",
        "1.0-2",
        "bookworm",
    )
    assert (file.filename, file.sha256, file.size) == ("libone_1.0-2_amd64.deb", ONE, 11)
    assert apt.asked[1] == ("show", "libone=1.0-2")
    assert apt.refreshed == 1


def test_non_free_packages_come_from_their_component(
    tmp_path: Path, fetcher: Fetcher, apt: Apt
) -> None:
    wanted = [
        build(tmp_path, "x", AptSource("trixie/non-free", ("libone",))),
        build(tmp_path, "y", AptSource("bookworm", ("libone",))),
    ]
    files = lock_update.resolve(wanted, fetcher)
    assert {(f.build, f.version, f.suite) for f in files} == {
        ("x", "1.0-2", "trixie/non-free"),
        ("y", "1.0-2", "bookworm"),
    }
    assert set(apt.groups) == {"main", "non-free"}
    apt.groups.clear()
    lock_update.resolve(wanted[1:], fetcher)
    assert set(apt.groups) == {"main"}, (
        "a mirror without the component can serve all other packages"
    )


def test_a_source_package_is_all_of_its_files(tmp_path: Path, fetcher: Fetcher, apt: Apt) -> None:
    files = lock_update.resolve(
        [build(tmp_path, "x", AptSourcePackage("bookworm", "one"))], fetcher
    )
    assert [(f.type, f.name, f.version, f.filename, f.sha256, f.size) for f in files] == [
        ("apt-source", "one", "1.0-2", "one_1.0-2.dsc", DSC, 5),
        ("apt-source", "one", "1.0-2", "one_1.0.orig.tar.xz", TAR, 7),
    ]
    assert apt.asked[-1] == ("showsrc", "--only-source", "one")


def test_a_name_that_the_suite_lacks(tmp_path: Path, fetcher: Fetcher, apt: Apt) -> None:
    with pytest.raises(FetchError, match="Debian bullseye has no package 'libone'"):
        lock_update.resolve([build(tmp_path, "x", AptSource("bullseye", ("libone",)))], fetcher)
    assert apt.refreshed == 1


def test_wheels_of_several_versions_and_local_builds(
    tmp_path: Path, fetcher: Fetcher, index: Path
) -> None:
    builds = [
        build(tmp_path, "old", PypiSource("low==1.0")),
        build(tmp_path, "both", PypiSource("low==2.0+cpu"), PypiSource("low===2.0")),
    ]
    files = lock_update.resolve(builds, fetcher)
    assert sorted((f.build, f.position, f.version) for f in files) == [
        ("both", 0, "2.0+cpu"),
        ("both", 1, "2.0"),
        ("old", 0, "1.0"),
    ]
    for file in files:
        assert file.sha256 == hashlib.sha256((index / file.filename).read_bytes()).hexdigest()
        assert (file.type, file.python, file.abi) == ("pypi", toolchain_builds.DEFAULT_PYTHON, "")


def test_without_debian_packages_apt_is_not_asked(
    tmp_path: Path, fetcher: Fetcher, index: Path, apt: Apt
) -> None:
    assert index.is_dir()
    assert lock_update.resolve([build(tmp_path, "old", PypiSource("low==1.0"))], fetcher)
    assert apt.refreshed == 0


def test_an_unknown_build(root: Path, console: Console) -> None:
    with pytest.raises(ConfigurationError, match="no build of the toolchain is called 'nothing'"):
        lock_update.update(root, console, ["nothing"], inherited={})
