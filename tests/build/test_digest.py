# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from vllm_build import digest
from vllm_build.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "a"
    (folder / "csrc" / "norm").mkdir(parents=True)
    (folder / "csrc" / "norm" / "x.cc").write_bytes(b"int x;\nint y;\n")
    (folder / "csrc" / "b.h").write_bytes(b"// b\n")
    (folder / "VERSION").write_bytes(b"1\n")
    return folder


INPUTS = ("csrc", "VERSION")


def test_place_time_and_mode_do_not_count(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "b"
    shutil.copytree(tree, copy)
    os.utime(copy / "VERSION", (1, 1))
    (copy / "csrc" / "b.h").chmod(0o600)
    assert digest.tree_digest(tree, INPUTS) == digest.tree_digest(copy, INPUTS)


def test_line_endings_do_not_count(tree: Path) -> None:
    before = digest.tree_digest(tree, INPUTS)
    (tree / "csrc" / "norm" / "x.cc").write_bytes(b"int x;\r\nint y;\r\n")
    assert digest.tree_digest(tree, INPUTS) == before


def test_generated_files_do_not_count(tree: Path) -> None:
    before = digest.tree_digest(tree, INPUTS)
    (tree / "csrc" / "__pycache__").mkdir()
    (tree / "csrc" / "__pycache__" / "x.pyc").write_bytes(b"\0")
    (tree / "csrc" / "_C.abi3.so").write_bytes(b"\x7fELF")
    assert digest.tree_digest(tree, INPUTS) == before


@pytest.mark.parametrize("change", ["content", "name", "extra", "moved"])
def test_everything_else_counts(tree: Path, change: str) -> None:
    before = digest.tree_digest(tree, INPUTS)
    source = tree / "csrc" / "norm" / "x.cc"
    if change == "content":
        source.write_bytes(b"int x;\nint z;\n")
    elif change == "name":
        source.rename(source.with_name("y.cc"))
    elif change == "extra":
        (tree / "csrc" / "new.h").write_bytes(b"")
    else:
        source.rename(tree / "csrc" / "x.cc")
    assert digest.tree_digest(tree, INPUTS) != before


def test_incomplete_tree_is_an_error(tree: Path) -> None:
    with pytest.raises(ConfigurationError, match="cmake"):
        digest.tree_digest(tree, (*INPUTS, "cmake"))


def test_kernels_and_package_have_inputs_of_their_own(root: Path, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns(".git", ".venv", "output", "build", "*.so")
    copy = tmp_path / "tree"
    shutil.copytree(root, copy, ignore=ignored)
    kernels, package = digest.kernel_digest(copy), digest.package_digest(copy)
    assert (kernels, package) == (digest.kernel_digest(root), digest.package_digest(root))
    (copy / "vllm" / "__init__.py").write_text("# changed\n", encoding="utf-8")
    assert digest.kernel_digest(copy) == kernels
    assert digest.package_digest(copy) != package
    (copy / "csrc" / "kernels.toml").write_text("# changed\n", encoding="utf-8")
    assert digest.kernel_digest(copy) != kernels
