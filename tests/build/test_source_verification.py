# SPDX-License-Identifier: Apache-2.0
"""How often a process reads locked sources to verify them: once, and again for every build."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from fake_cmake import calls, configuration
from setuptools import Distribution

from vllm_build.native import highway_lookup, private_build
from vllm_build.sources import folder_digest, third_party
from vllm_build.util.errors import IntegrityError
from vllm_build.wheels import cmake_ext

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"CMakeLists.txt": "project(hwy)\n", "hwy/base.h": "// base\n"}


@pytest.fixture
def highway(root: Path, tools: Path, monkeypatch: pytest.MonkeyPatch) -> third_party.Source:
    """Locked sources of Highway in the cache, which holds few files for this test."""
    assert tools.is_dir()
    locked = third_party.read(root)
    folder = locked["highway"].folder
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    source = replace(locked["highway"], tree_sha256=folder_digest.digest_of(folder))
    monkeypatch.setattr(third_party, "read", lambda _: {**locked, "highway": source})
    folder_digest.forget()
    return source


@pytest.fixture
def hashed(highway: third_party.Source, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by the name of each file of Highway that is read and hashed."""
    names: list[str] = []
    real = folder_digest._entry

    def entry(folder: Path, name: str) -> str:
        if folder == highway.folder:
            names.append(name)
        return real(folder, name)

    monkeypatch.setattr(folder_digest, "_entry", entry)
    return names


@pytest.fixture
def command(
    root: Path, highway: third_party.Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> cmake_ext.cmake_build_ext:
    assert highway.folder.is_dir()
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    extension = cmake_ext.CMakeExtension("vllm._C", str(root))
    command = cmake_ext.cmake_build_ext(
        Distribution({"name": "vllm", "version": "1.0", "ext_modules": [extension]})
    )
    command.build_lib = str(tmp_path / "lib")
    command.ensure_finalized()
    return command


def test_a_build_reads_the_sources_once(
    command: cmake_ext.cmake_build_ext, hashed: list[str], tools: Path
) -> None:
    command.build_extensions()
    assert [call["args"][0] for call in calls(tools)] == ["-S", "--build", "--install"]
    assert sorted(hashed) == sorted(FILES)


def test_every_build_of_a_process_verifies_its_sources(
    command: cmake_ext.cmake_build_ext,
    highway: third_party.Source,
    hashed: list[str],
    tools: Path,
) -> None:
    command.build_extensions()
    command.build_extensions()
    assert len(hashed) == 2 * len(FILES)
    calls(tools)
    (highway.folder / "hwy" / "base.h").write_text("// evil\n", encoding="utf-8")
    with pytest.raises(IntegrityError, match="not the locked ones"):
        command.build_extensions()
    assert calls(tools) == [], "the build stops before CMake sees the sources"


def test_questions_outside_a_build_read_the_sources_once(
    root: Path, highway: third_party.Source, hashed: list[str]
) -> None:
    config = configuration(root)
    expected = {"HIGHWAY_SRC_DIR": str(highway.folder)}
    assert highway_lookup.find(config) == highway_lookup.find(config) == expected
    assert private_build.influences(config) == ()
    assert sorted(hashed) == sorted(FILES)


def test_the_users_sources_are_read_once(root: Path, tmp_path: Path, tools: Path) -> None:
    assert tools.is_dir()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "base.h").write_text("// one\n", encoding="utf-8")
    config = configuration(root, highway_source=mine)
    (first,) = private_build.influences(config)
    (mine / "base.h").write_text("// two\n", encoding="utf-8")
    assert private_build.influences(config) == (first,)
    folder_digest.forget()
    assert private_build.influences(config) != (first,)


def test_a_failed_verification_is_not_remembered(
    highway: third_party.Source, hashed: list[str]
) -> None:
    good = (highway.folder / "hwy" / "base.h").read_bytes()
    (highway.folder / "hwy" / "base.h").write_text("// evil\n", encoding="utf-8")
    with pytest.raises(IntegrityError, match="not the locked ones"):
        highway.cached()
    (highway.folder / "hwy" / "base.h").write_bytes(good)
    assert highway.cached() == highway.cached() == highway.folder
    assert len(hashed) == 2 * len(FILES)


def test_fetching_always_reads_the_sources(highway: third_party.Source, hashed: list[str]) -> None:
    assert highway.cached() == highway.folder
    assert highway.is_intact()
    (highway.folder / "hwy" / "base.h").write_text("// evil\n", encoding="utf-8")
    assert not highway.is_intact()
    assert len(hashed) == 3 * len(FILES)
