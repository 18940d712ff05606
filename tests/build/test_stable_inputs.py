# SPDX-License-Identifier: Apache-2.0
"""Headers of a torch that moves keep their content, path and time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vllm_build.sources import stable_inputs
from vllm_build.util import removal
from vllm_build.util.errors import ConfigurationError, ToolchainError

if TYPE_CHECKING:
    from pathlib import Path

FOLDERS = ("torch/a", "torch/b")


def torch(folder: Path, **content: str) -> Path:
    for name in FOLDERS:
        (folder / name / "sub").mkdir(parents=True)
    (folder / "torch" / "unused.h").write_text("ATen", encoding="utf-8")
    for name, text in {
        "a/x.h": "x",
        "b/sub/y.h": "y",
        **{k.replace("__", "/") + ".h": v for k, v in content.items()},
    }.items():
        (folder / "torch" / name).write_text(text, encoding="utf-8")
    return folder


def state(place: Path) -> dict[str, tuple[str, int]]:
    return {
        p.relative_to(place).as_posix(): (p.read_text(encoding="utf-8"), p.stat().st_mtime_ns)
        for p in place.rglob("*")
        if p.is_file()
    }


def test_only_these_folders(tmp_path: Path) -> None:
    place = stable_inputs.mirror(torch(tmp_path / "one"), tmp_path / "m", FOLDERS)
    assert sorted(state(place)) == ["torch/a/x.h", "torch/b/sub/y.h"]


def test_the_same_torch_elsewhere_changes_nothing(tmp_path: Path) -> None:
    place = stable_inputs.mirror(torch(tmp_path / "one"), tmp_path / "m", FOLDERS)
    before = state(place)
    assert state(stable_inputs.mirror(torch(tmp_path / "two"), tmp_path / "m", FOLDERS)) == before


def test_another_torch_changes_what_differs(tmp_path: Path) -> None:
    before = state(
        stable_inputs.mirror(torch(tmp_path / "one", a__old="gone"), tmp_path / "m", FOLDERS)
    )
    after = state(
        stable_inputs.mirror(torch(tmp_path / "two", a__x="other"), tmp_path / "m", FOLDERS)
    )
    assert after["torch/a/x.h"][0] == "other"
    assert after["torch/a/x.h"][1] > before["torch/a/x.h"][1]
    assert after["torch/b/sub/y.h"] == before["torch/b/sub/y.h"]
    assert "torch/a/old.h" in before
    assert "torch/a/old.h" not in after


def test_a_link_of_an_older_build_gives_way(tmp_path: Path) -> None:
    source = torch(tmp_path / "one")
    (tmp_path / "m").symlink_to(source)
    stable_inputs.mirror(source, tmp_path / "m", FOLDERS)
    assert not (tmp_path / "m").is_symlink()
    assert (source / "torch" / "unused.h").exists()


def test_a_torch_without_the_headers(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="torch/a does not exist"):
        stable_inputs.mirror(tmp_path, tmp_path / "m", FOLDERS)


def test_link(tmp_path: Path) -> None:
    place = tmp_path / "inputs" / "torch-lib"
    assert stable_inputs.link(place, tmp_path / "one") == place
    inode = place.lstat().st_ino
    stable_inputs.link(place, tmp_path / "one")
    assert place.lstat().st_ino == inode
    stable_inputs.link(place, tmp_path / "two")
    assert place.readlink() == tmp_path / "two"
    place.unlink()
    place.mkdir()
    (place / "file").touch()
    with pytest.raises(ConfigurationError, match="is not removed"):
        stable_inputs.link(place, tmp_path / "two")
    assert (place / "file").is_file()
    removal.claim(tmp_path, "the build folder", ("*",))
    stable_inputs.link(place, tmp_path / "two")
    assert place.readlink() == tmp_path / "two"
