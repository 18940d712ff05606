# SPDX-License-Identifier: Apache-2.0
"""Moving the engine's entry in the lock to another release."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from vllm_build.digests import recipe_stamp
from vllm_build.engine import engine_source
from vllm_build.sources import engine_kernels, third_party
from vllm_build.toolchain import engine_lock, pypi, sdist_search
from vllm_build.util.console import Console
from vllm_build.util.errors import ConfigurationError, FetchError, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path


def test_only_the_entry_of_the_engine_changes(root: Path) -> None:
    text = (root / third_party.LOCK).read_text(encoding="utf-8")
    before = engine_source.locked(root)
    after = dataclasses.replace(
        before,
        version="0.32.1",
        filename="vllm-0.32.1.tar.gz",
        size=7,
        sha256="1" * 64,
        tree_sha256="2" * 64,
    )
    new = engine_lock.rewrite(text, after)
    lines = [
        (old, found)
        for old, found in zip(text.splitlines(), new.splitlines(), strict=True)
        if old != found
    ]
    assert [found for _, found in lines] == [
        'version = "0.32.1"',
        'filename = "vllm-0.32.1.tar.gz"',
        "size = 7",
        f'sha256 = "{"1" * 64}"',
        f'tree_sha256 = "{"2" * 64}"',
        'get = { type = "pypi-sdist", package = "vllm", version = "0.32.1" }',
    ]
    assert engine_lock.rewrite(new, before) == text


@pytest.mark.parametrize("text", ["schema = 1\n", '[[source]]\nname = "vllm"\nsize = 1\n'])
def test_a_lock_without_the_entry(root: Path, text: str) -> None:
    with pytest.raises(ConfigurationError):
        engine_lock.rewrite(text, engine_source.locked(root))


@pytest.fixture
def tree(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree with the real lock, and an empty cache."""
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))
    copy = tmp_path / "tree"
    (copy / "third_party").mkdir(parents=True)
    text = (root / third_party.LOCK).read_text(encoding="utf-8")
    (copy / third_party.LOCK).write_text(text, encoding="utf-8")
    return copy


def archive(folder: Path, version: str) -> Path:
    """A source distribution of a small engine."""
    top = folder / f"vllm-{version}"
    for name, text in {
        "LICENSE": "free",
        "vllm/__init__.py": f"# {version}",
        "csrc/activation_kernels.cu": "// kernels",
        "cmake/utils.cmake": "",
        "CMakeLists.txt": "",
        "tests/test_a.py": "",
        "requirements/common.txt": "",
        "pyproject.toml": '[project]\nname = "vllm"\nrequires-python = ">=3.11"\n'
        '[project.scripts]\nvllm = "vllm.cli:main"\n',
    }.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text, encoding="utf-8")
    path = folder / f"vllm-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(top, top.name)
    return path


def test_an_update_writes_the_lock_and_fills_the_cache(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdist = archive(tmp_path, "9.9.0")
    sha256 = hashlib.sha256(sdist.read_bytes()).hexdigest()

    def download(*arguments: object, **_options: object) -> None:
        folder = arguments[3]
        os.link(sdist, f"{folder}/{sdist.name}")

    monkeypatch.setattr(sdist_search, "find", lambda *_, **__: (sdist.name, sha256))
    monkeypatch.setattr(pypi, "download_sdist", download)
    stamped: list[Path] = []
    monkeypatch.setattr(recipe_stamp, "write", stamped.append)
    engine_lock.update(tree, "9.9.0", Console(), dict(os.environ))
    assert stamped == [tree]
    found = engine_source.find(tree)
    assert (found.version, found.sha256) == ("9.9.0", sha256)
    assert sorted(path.name for path in found.folder.iterdir()) == [
        *("LICENSE", "pyproject.toml", "requirements", "vllm")
    ]
    assert engine_source.metadata(found).scripts == {"vllm": "vllm.cli:main"}
    # The kernels of the same archive.
    kernels = third_party.folder(tree, engine_kernels.NAME, None)
    assert third_party.read(tree)[engine_kernels.NAME].version == "9.9.0"
    assert (kernels / "csrc" / "activation_kernels.cu").read_text("utf-8") == "// kernels"
    assert not (kernels / "vllm").exists()


def test_an_engine_that_was_not_fetched(tree: Path) -> None:
    with pytest.raises(FetchError) as caught:
        engine_source.find(tree)
    assert "vllm-build fetch vllm" in (caught.value.remedy or "")


def test_a_project_file_of_another_layout(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'vllm'\n", encoding="utf-8")
    with pytest.raises(IntegrityError, match="requires-python"):
        engine_source.metadata(engine_source.Engine("1", "a" * 64, tmp_path))
