# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from vllm_build.digests import recipe_stamp
from vllm_build.util.errors import IntegrityError

if TYPE_CHECKING:
    from pathlib import Path


def test_committed_stamp_is_in_step(root: Path) -> None:
    recipe_stamp.check(root)


def test_stale_stamp_is_refused_then_written(root: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(root, tree, ignore=shutil.ignore_patterns(".git", ".venv", "output", "build"))
    (tree / "csrc" / "core" / "rows.h").write_text("// new\n", encoding="utf-8")
    with pytest.raises(IntegrityError, match="does not match the tree") as caught:
        recipe_stamp.check(tree)
    assert caught.value.remedy == "vllm-build stamp"
    assert recipe_stamp.write(tree)
    recipe_stamp.check(tree)
    assert not recipe_stamp.write(tree)
