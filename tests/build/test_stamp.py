# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from trees import copy_tree

from vllm_build.digests import recipe_stamp
from vllm_build.util.errors import IntegrityError

if TYPE_CHECKING:
    from pathlib import Path


def test_committed_stamp_is_in_step(root: Path) -> None:
    recipe_stamp.check(root)


def test_stale_stamp_is_refused_then_written(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    copy_tree(tree, "tests")
    (tree / "csrc" / "core" / "rows.h").write_text("// new\n", encoding="utf-8")
    with pytest.raises(IntegrityError, match="does not match the tree") as caught:
        recipe_stamp.check(tree)
    assert caught.value.remedy == "vllm-build stamp"
    assert recipe_stamp.write(tree)
    recipe_stamp.check(tree)
    assert not recipe_stamp.write(tree)


@pytest.mark.parametrize("symlinks", [True, False])
def test_links_stay_links_and_copies_are_written(tmp_path: Path, *, symlinks: bool) -> None:
    """A checkout has links next to the recipes, and a source distribution has copies."""
    tree = tmp_path / "tree"
    copy_tree(tree, "tests", symlinks=symlinks)
    (tree / "csrc" / "core" / "rows.h").write_text("// new\n", encoding="utf-8")
    assert recipe_stamp.write(tree)
    file, *others = recipe_stamp._files(tree)
    assert len(others) == 5
    for other in others:
        assert other.is_symlink() is symlinks
        assert other.read_bytes() == file.read_bytes()
    if not symlinks:
        others[0].write_bytes(b"")
        with pytest.raises(
            IntegrityError, match=f"{others[0].parent.name}/variants.yaml does not match"
        ):
            recipe_stamp.check(tree)
