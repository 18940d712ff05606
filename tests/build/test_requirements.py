# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

from vllm_build import requirements
from vllm_build.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

#: PyPI's names where conda-forge has another.
CONDA_NAMES = {"torch": "pytorch"}


def write(folder: Path, **files: str) -> Path:
    (folder / "requirements").mkdir()
    for name, text in files.items():
        (folder / "requirements" / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def test_includes_comments_and_options(tmp_path: Path) -> None:
    tree = write(
        tmp_path, common="# why\nfoo>=1  # because\n", cpu="--extra-index-url x\n-r common.txt\nbar ; python_version > '3'\nfoo>=1\n"
    )
    assert requirements.read(tree, "cpu") == ["foo>=1", "bar ; python_version > '3'"]
    assert requirements.read(tree, "empty") == ["foo>=1"]


def test_circle_is_an_error(tmp_path: Path) -> None:
    tree = write(tmp_path, common="-r cpu.txt\n", cpu="-r common.txt\n")
    with pytest.raises(ConfigurationError, match="includes itself"):
        requirements.read(tree, "cpu")


def test_malformed_line_is_named(tmp_path: Path) -> None:
    tree = write(tmp_path, cpu="fine\nnot a requirement !!\n")
    with pytest.raises(ConfigurationError, match=r"cpu\.txt:2"):
        requirements.read(tree, "cpu")


def test_missing_device_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        requirements.read(write(tmp_path), "rocm")


def test_recipe_requires_what_pip_requires(root: Path) -> None:
    recipe = YAML(typ="safe", pure=True).load((root / "recipe" / "recipe.yaml").read_text(encoding="utf-8"))
    (vllm,) = (o for o in recipe["outputs"] if o.get("package", {}).get("name") == "vllm")
    own = {"python >=3.10"}
    conda = {entry for entry in vllm["requirements"]["run"] if not entry.startswith("vllm-kernels") and entry not in own}
    pip = set()
    for line in requirements.read(root, "cpu"):
        name = line.split(">", 1)[0]
        pip.add(f"{CONDA_NAMES.get(name, name)} {line.removeprefix(name)}")
    assert conda == pip
