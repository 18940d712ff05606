# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_build import gpu_targets
from vllm_build.conda import variants
from vllm_build.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path, root: Path) -> Path:
    (tmp_path / "variants").mkdir()
    text = (root / "variants" / "cpu.yaml").read_text(encoding="utf-8")
    (tmp_path / "variants" / "cpu.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def edit(tree: Path, old: str, new: str) -> None:
    path = tree / "variants" / "cpu.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_every_variant_of_the_tree_loads(root: Path) -> None:
    assert "cpu" in variants.names(root)
    for name in variants.names(root):
        assert variants.load(root, name).name == name


@pytest.mark.parametrize("name", ["cuda12", "cuda124", "cuda13"])
def test_architectures_of_a_variant_are_the_projects_list(root: Path, name: str) -> None:
    variant = variants.load(root, name)
    listed = gpu_targets.parse("cuda", variant.values["cuda_arch_list"], name)
    expected = gpu_targets.default("cuda", variant.toolkit_version)
    assert [entry.removesuffix("+PTX") for entry in listed] == [entry.removesuffix("+PTX") for entry in expected]
    # For chips that come later; PTX with one chip's own instructions would serve none of them.
    assert [entry for entry in listed if entry.endswith("+PTX") and "a+" not in entry]


def test_a_variant_without_a_toolkit(root: Path) -> None:
    assert variants.load(root, "cpu").toolkit_version is None


def test_keys_of_cuda_are_named_where_they_are_missing(root: Path, tmp_path: Path) -> None:
    text = (root / "variants" / "cuda13.yaml").read_text(encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace('cuda_compiler_version:\n  - "13.0"\n', ""), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"mine\.yaml lacks cuda_compiler_version\n"):
        variants.load(root, str(path))


def test_a_path_is_a_variant_too(root: Path) -> None:
    path = root / "variants" / "cpu.yaml"
    assert variants.load(root, str(path)) == variants.load(root, "cpu")


def test_unknown_variant_lists_the_known(tree: Path) -> None:
    with pytest.raises(ConfigurationError, match="no variant 'cuda99'") as caught:
        variants.load(tree, "cuda99")
    assert "cpu" in (caught.value.expected or "")


def test_missing_keys_are_named(tree: Path) -> None:
    edit(tree, 'c_stdlib:\n  - "sysroot"\n', "")
    with pytest.raises(ConfigurationError, match=r"cpu\.yaml lacks c_stdlib\n"):
        variants.load(tree, "cpu")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('- "2.31"', '- "2..31"', "not a version"),
        ('- "3.11"', "- 3.11", "float"),
        ('- "12"', '- "12"\n  - "13"', "exactly one|has \\["),
        ('accelerator:\n  - "cpu"', 'accelerator: "cpu"', "accelerator"),
        ("accelerator:", "accelerator: [", "not YAML"),
    ],
)
def test_malformed_file_is_refused(tree: Path, old: str, new: str, said: str) -> None:
    edit(tree, old, new)
    with pytest.raises(ConfigurationError, match=said) as caught:
        variants.load(tree, "cpu")
    assert "cpu.yaml" in caught.value.message


@given(st.text(max_size=200))
def test_no_text_crashes_the_reader(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("variant") / "x.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigurationError):
        variants.load(path.parent, str(path))
