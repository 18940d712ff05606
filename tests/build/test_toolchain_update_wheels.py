# SPDX-License-Identifier: Apache-2.0
"""Updates of the lock for wheels of each kind: newer versions, and versions that have vanished."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from toolchain_wheels import write_table, write_wheel

from vllm_build.toolchain import toolchain_lock, wheel_table
from vllm_build.toolchain.pypi import MissingVersionError

if TYPE_CHECKING:
    from toolchain_tree import Tree

TABLE = """\
pythons = ["3.11", "3.13"]
[engine]
any = "any==VERSION"
each = { requirement = "each==VERSION", kind = "compiled" }
stable = { requirement = "stable==VERSION", kind = "abi3" }
"""
TAGS = {
    "any": ["py3-none-any"],
    "each": [f"cp{n}-cp{n}-manylinux_2_17_x86_64" for n in ("311", "313")],
    "stable": ["cp38-abi3-manylinux_2_17_x86_64"],
}
INTERPRETERS = ("python", "python_abi", "python-gil")
BUILDS = {"any", "each-3.11", "each-3.13", "stable"}


NONE = "the index has none of any version"


@pytest.fixture
def tree(toolchain_tree: Tree) -> Tree:
    """A tree with one wheel of each kind; the index has 1.0 and 2.0 of all."""
    for name, tags in TAGS.items():
        for tag in tags:
            for version in ("1.0", "2.0"):
                write_wheel(toolchain_tree.index, name, version, tag=tag)
    for name in INTERPRETERS:
        folder = toolchain_tree.root / "toolchain" / "recipes" / name
        folder.mkdir()
        (folder / "recipe.yaml").write_text("schema_version: 1\n", encoding="utf-8")
        builds = [
            f'[[build]]\nid = "{name}-{python}"\nversion = "{python}.0"\n'
            f'variant = {{ python_version = "{python}" }}\n'
            for python in ("3.11", "3.13")
        ]
        (folder / "sources.toml").write_text("".join(builds), encoding="utf-8")
    choose(toolchain_tree, "1.0")
    return toolchain_tree


def choose(tree: Tree, version: str) -> None:
    write_table(tree.root, TABLE.replace("VERSION", version))


def locked(tree: Tree) -> dict[str, str]:
    return {
        name: files[0].filename
        for name, files in toolchain_lock.read(tree.root).files.items()
        if name in BUILDS
    }


def test_the_lock_moves_to_newer_versions_of_every_kind(tree: Tree) -> None:
    assert {file.build for file in tree.update()} >= BUILDS
    old = locked(tree)
    choose(tree, "2.0")
    named = ["each-3.13", "stable"]
    assert {file.build: file.version for file in tree.update(named)} == dict.fromkeys(named, "2.0")
    assert locked(tree) == {
        name: file.replace("-1.0-", "-2.0-") if name in named else file
        for name, file in old.items()
    }
    assert {file.build for file in tree.update()} == BUILDS - set(named)
    assert locked(tree) == {name: file.replace("-1.0-", "-2.0-") for name, file in old.items()}
    assert locked(tree)["each-3.13"] == "each-2.0-cp313-cp313-manylinux_2_17_x86_64.whl"


def test_one_error_names_every_version_that_has_vanished(tree: Tree) -> None:
    choose(tree, "2.0")
    (tree.index / "any-2.0-py3-none-any.whl").unlink()
    (tree.index / "each-2.0-cp313-cp313-manylinux_2_17_x86_64.whl").unlink()
    for version in ("1.0", "2.0"):
        (tree.index / f"stable-{version}-{TAGS['stable'][0]}.whl").unlink()
    with pytest.raises(MissingVersionError) as caught:
        tree.update(sorted(BUILDS))
    table = tree.root / wheel_table.TABLE
    assert sorted(caught.value.message.splitlines()) == [
        f"{table}:3: pip finds no pure wheel for any platform of any==2.0; the index has 1.0",
        f"{table}:4: pip finds no wheel of each==2.0 for Python 3.13; the index has 1.0",
        f"{table}:5: pip finds no wheel of stable==2.0 for Python 3.11 (abi3); {NONE}",
    ]
    assert caught.value.expected == "versions that the configured index has"
    assert locked(tree) == {}, "the lock stays as it was"


def test_a_message_that_names_no_version_is_shown_as_it_is(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(tree, "3.0")
    monkeypatch.setattr("vllm_build.toolchain.pip_answers.unmatched", lambda _: "")
    with pytest.raises(MissingVersionError, match=r"pip finds no .*any==3\.0"):
        tree.update(["any"])
