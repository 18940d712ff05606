# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from packaging.version import Version
from trees import copy_tree

from vllm_build.digests import tree_digests, tree_files
from vllm_build.kernels import kernel_choice, kernels_table, plan_resolver
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.kernels.build_plan import Plan


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "a"
    (folder / "csrc" / "norm").mkdir(parents=True)
    (folder / "csrc" / "norm" / "x.cc").write_bytes(b"int x;\nint y;\n")
    (folder / "csrc" / "b.h").write_bytes(b"// b\n")
    (folder / "VERSION").write_bytes(b"1\n")
    return folder


INPUTS = ("csrc", "VERSION")


def tree_digest(tree: Path, inputs: tuple[str, ...]) -> str:
    return tree_digests.of_entries(
        {
            p.relative_to(tree).as_posix(): tree_files.digest_of(p)
            for p in tree_files.below(tree, inputs)
        }
    )


def test_place_time_and_mode_do_not_count(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "b"
    shutil.copytree(tree, copy)
    os.utime(copy / "VERSION", (1, 1))
    (copy / "csrc" / "b.h").chmod(0o600)
    assert tree_digest(tree, INPUTS) == tree_digest(copy, INPUTS)


def test_line_endings_do_not_count(tree: Path) -> None:
    before = tree_digest(tree, INPUTS)
    (tree / "csrc" / "norm" / "x.cc").write_bytes(b"int x;\r\nint y;\r\n")
    assert tree_digest(tree, INPUTS) == before


def test_generated_files_do_not_count(tree: Path) -> None:
    before = tree_digest(tree, INPUTS)
    (tree / "csrc" / "__pycache__").mkdir()
    (tree / "csrc" / "__pycache__" / "x.pyc").write_bytes(b"\0")
    (tree / "csrc" / "_C.abi3.so").write_bytes(b"\x7fELF")
    assert tree_digest(tree, INPUTS) == before


@pytest.mark.parametrize("change", ["content", "name", "extra", "moved"])
def test_everything_else_counts(tree: Path, change: str) -> None:
    before = tree_digest(tree, INPUTS)
    source = tree / "csrc" / "norm" / "x.cc"
    if change == "content":
        source.write_bytes(b"int x;\nint z;\n")
    elif change == "name":
        source.rename(source.with_name("y.cc"))
    elif change == "extra":
        (tree / "csrc" / "new.h").write_bytes(b"")
    else:
        source.rename(tree / "csrc" / "x.cc")
    assert tree_digest(tree, INPUTS) != before


@pytest.mark.parametrize("target", ["b.h", "norm/x.cc", "../../outside.h"])
def test_a_link_to_a_file_counts_as_that_file(tree: Path, target: str) -> None:
    (tree.parent / "outside.h").write_text("// outside\n", encoding="utf-8")
    before, link = tree_digest(tree, INPUTS), tree / "csrc" / "link.h"
    link.symlink_to(target)
    linked = tree_digest(tree, INPUTS)
    assert linked != before
    with link.open("a", encoding="utf-8") as stream:
        stream.write("// more\n")
    assert tree_digest(tree, INPUTS) != linked
    changed = tree_digest(tree, INPUTS)
    content = link.read_bytes()
    link.unlink()
    link.write_bytes(content)
    assert tree_digest(tree, INPUTS) == changed, "a source distribution contains a file instead"


@pytest.mark.parametrize(
    ("target", "where"),
    [("y", "nothing"), ("link.h", "nothing"), ("norm", "a folder"), ("../..", "a folder")],
)
def test_a_link_to_no_file_is_refused(tree: Path, target: str, where: str) -> None:
    (tree / "csrc" / "link.h").symlink_to(target)
    with pytest.raises(
        ConfigurationError, match=rf"csrc/link\.h is a symbolic link to {where} \({target}\)"
    ):
        tree_digest(tree, INPUTS)


@pytest.mark.parametrize("name", ["_C.abi3.so", "__pycache__", "_build_info", "variants.yaml"])
def test_a_link_with_the_name_of_a_generated_file_does_not_count(tree: Path, name: str) -> None:
    before = tree_digest(tree, INPUTS)
    (tree / "csrc" / name).symlink_to("nowhere")
    assert tree_digest(tree, INPUTS) == before


@pytest.mark.parametrize(
    "place",
    [
        "vllm/x.py",
        "cmake/x.cmake",
        "recipe/x.py",
        "scripts/vllm_build/x.py",
        "third_party/licenses/x",
    ],
)
def test_links_among_the_sources_move_digests_or_are_refused(
    root: Path, tmp_path: Path, place: str
) -> None:
    copy = copy_tree(tmp_path / "tree")

    def digests() -> tuple[str, str, str]:
        return (
            tree_digests.kernel_digest(copy, "vllm-kernels"),
            tree_digests.package_digest(copy),
            tree_digests.recipe_digest(copy, "vllm"),
        )

    before, link = digests(), copy / place
    assert before == (
        tree_digests.kernel_digest(root, "vllm-kernels"),
        tree_digests.package_digest(root),
        tree_digests.recipe_digest(root, "vllm"),
    )
    link.symlink_to(copy / "LICENSE")
    assert digests() != before
    link.unlink()
    link.symlink_to("y")
    with pytest.raises(ConfigurationError, match="symbolic link to nothing"):
        digests()


def test_incomplete_tree_is_an_error(tree: Path) -> None:
    with pytest.raises(ConfigurationError, match="cmake"):
        tree_digest(tree, (*INPUTS, "cmake"))


def test_the_package_has_inputs_of_its_own(root: Path, tmp_path: Path) -> None:
    copy = copy_tree(tmp_path / "tree", "tests")
    kernels, package = (
        tree_digests.kernel_digest(copy, "vllm-kernels"),
        tree_digests.package_digest(copy),
    )
    assert (kernels, package) == (
        tree_digests.kernel_digest(root, "vllm-kernels"),
        tree_digests.package_digest(root),
    )
    (copy / "vllm" / "__init__.py").write_text("# changed\n", encoding="utf-8")
    assert tree_digests.kernel_digest(copy, "vllm-kernels") == kernels
    assert tree_digests.package_digest(copy) != package


def planned(
    root: Path,
    device: str = "cuda",
    toolkit: str = "13.0",
    archs: str = "9.0a",
    chosen: str = "dev",
) -> Plan:
    release = Version(toolkit) if device == "cuda" else None
    asked = archs if device == "cuda" else None
    return plan_resolver.resolve(
        kernels_table.load(root),
        device,
        toolkit_version=release,
        arch_list=asked,
        choice=kernel_choice.Choice(chosen),
    )


def build_digest(root: Path, component: str, found: Plan, abi: str) -> str:
    return tree_digests.build_digest(
        tree_digests.kernel_digest(root, component), component, found, abi
    )


def test_what_a_build_has_chosen_is_in_its_digest(root: Path) -> None:
    kernels = {
        build_digest(root, "vllm-kernels", found, abi)
        for found in (
            planned(root),
            planned(root, archs="8.0"),
            planned(root, toolkit="12.9"),
            planned(root, "cpu"),
        )
        for abi in ("abi3", "cpython-313t-x86_64-linux-gnu")
    }
    assert len(kernels) == 8
    assert build_digest(
        root, "vllm-kernels", planned(root, toolkit="12.9"), "abi3"
    ) == build_digest(root, "vllm-kernels", planned(root, toolkit="12.8"), "abi3")
    attention = {
        build_digest(root, "vllm-flash-attn", planned(root, chosen=chosen), "abi3")
        for chosen in ("dev", "full")
    }
    assert len(attention) == 2


def test_a_build_without_the_output_has_no_digest_of_it(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="this build has no library of vllm-flash-attn"):
        build_digest(root, "vllm-flash-attn", planned(root, "cpu"), "abi3")
