# SPDX-License-Identifier: Apache-2.0
"""The lock of third-party sources."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_build.sources import third_party
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.record_reader import Document

ENTRY = """
[[source]]
name = "highway"
version = "1.2.0"
license = "Apache-2.0"
outputs = ["vllm-kernels"]
filename = "highway.tar.gz"
size = 10
sha256 = "SHA"
tree_sha256 = "TREE"
get = { type = "apt-source", suite = "trixie", package = "highway", revision = "1.2.0-2" }
""".replace("SHA", "a" * 64).replace("TREE", "b" * 64)


def tree(tmp_path: Path, text: str) -> Path:
    (tmp_path / "third_party").mkdir(exist_ok=True)
    (tmp_path / third_party.LOCK).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_lock_of_the_tree(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(cache))
    source = third_party.read(root)["highway"]
    assert source.folder == cache / "sources" / f"highway-{source.version}-{source.sha256[:16]}"
    assert source.cached() is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("", "[", "lock.toml"),
        ("schema = 1", "schema = 2", "has schema 2"),
        ("[[source]]", "[source]", "has schema 1"),
        ('name = "highway"', "", "'name' is missing"),
        ('name = "highway"', 'name = "../x"', "cannot name a file"),
        ('filename = "highway.tar.gz"', 'filename = "a/b"', "cannot name a file"),
        ("a" * 64, "A" * 64, "sha256 is malformed"),
        ("b" * 64, "B" * 64, "tree_sha256 is malformed"),
        ('tree_sha256 = "', '# "', "'tree_sha256' is missing"),
        ("size = 10", "size = -1", "size = -1"),
        ("size = 10", "size = true", "size = True"),
        ('get = { type = "apt-source",', "get = { ", "get = "),
        ('revision = "1.2.0-2"', "revision = 1", "get = "),
        ("size = 10", 'size = 10\ninclude = "a"', "include = 'a'"),
        ("size = 10", "size = 10\ninclude = [1]", "include = "),
        ("size = 10", 'size = 10\ninclude = ["../a"]', "include = "),
        ("size = 10", 'size = 10\ninclude = ["/a"]', "include = "),
        ("size = 10", 'size = 10\ninclude = ["a/"]', "include = "),
        ("size = 10", 'size = 10\ninclude = [""]', "include = "),
    ],
)
def test_a_wrong_lock(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = ("schema = 1\n" + ENTRY).replace(old, new, 1) if old else new
    with pytest.raises(ConfigurationError, match=words):
        third_party.read(tree(tmp_path, text))


def test_sources_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="number 1: not a table"):
        third_party.read(tree(tmp_path, "schema = 1\nsource = [1]\n"))
    with pytest.raises(ConfigurationError, match="No such file"):
        third_party.read(tmp_path / "nowhere")


@given(
    st.dictionaries(
        st.sampled_from(
            ["name", "version", "filename", "sha256", "license", "size", "get", "include"]
        ),
        st.text() | st.integers() | st.lists(st.text()),
    )
)
def test_any_entry_is_read_or_a_clear_error(entry: dict[str, object]) -> None:
    with contextlib.suppress(ConfigurationError):
        third_party._source(Document(Path("lock.toml"), ""), 0, entry)
