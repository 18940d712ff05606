# SPDX-License-Identifier: Apache-2.0
"""The channel with real, tiny packages: builds, reuse, and the state after an interruption."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from toolchain_tree import RECIPE, Tree

from vllm_build.packing import channel_index, recipe_builder
from vllm_build.toolchain import channel_build, channel_records, channel_views, toolchain_lock
from vllm_build.util.errors import BuildError, ConfigurationError, FetchError, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


@pytest.fixture
def tree(toolchain_tree: Tree) -> Tree:
    return toolchain_tree


def test_only_changed_packages_are_built(tree: Tree) -> None:
    assert tree.actions() == {"low": "built", "high": "built"}
    first = tree.packages()
    assert tree.actions() == {"low": "reused", "high": "reused"}
    assert tree.packages() == first
    extracted = {
        name: tree.cache / "rattler" / "pkgs" / name.removesuffix(".conda") for name in first
    }
    for folder in extracted.values():
        folder.mkdir(parents=True, exist_ok=True)
    before = tree.view
    tree.edit("high")
    assert tree.actions() == {"low": "reused", "high": "built"}
    second = tree.packages()
    assert len(second) == 2
    assert len(first & second) == 1, (
        "the view no longer has the superseded package, and the other one is unchanged"
    )
    assert all(folder.exists() for folder in extracted.values()), (
        "another process may be installing it"
    )
    assert tree.pool == first | second
    long_ago = 0
    os.utime(before / ".used", (long_ago, long_ago))
    cleaned = channel_views.clean(30)
    assert (cleaned.views, cleaned.packages) == (1, 1)
    assert cleaned.size > 0
    assert tree.pool == tree.packages() == second
    assert {name for name, folder in extracted.items() if folder.exists()} == first & second, (
        "its extracted content is removed too"
    )
    assert tree.actions() == {"low": "reused", "high": "reused"}


def test_a_change_below_reaches_what_needs_it(tree: Tree) -> None:
    tree.ensure()
    digest = channel_build.channel_digest(tree.root)
    tree.wheel("low", "changed = 1\n")
    assert [file.name for file in tree.update()] == ["low"]
    assert channel_build.channel_digest(tree.root) != digest
    assert tree.actions() == {"low": "built", "high": "built"}
    assert len(tree.packages()) == 2


def test_a_selection_brings_what_it_needs(tree: Tree) -> None:
    assert tree.actions(["low"]) == {"low": "built"}
    assert tree.actions(["high"]) == {"low": "reused", "high": "built"}
    with pytest.raises(ConfigurationError, match="called 'nothing'"):
        tree.ensure(["nothing"])


def test_the_report_says_where_and_how_large(tree: Tree) -> None:
    report = tree.ensure()
    assert report.url == tree.view.as_uri()
    assert report.path.parent == tree.cache / "channel"
    assert report.built == 2
    assert report.digest == channel_build.channel_digest(tree.root)
    assert {name for outcome in report.outcomes for name in outcome.packages} == tree.packages()
    assert all(outcome.size > 0 for outcome in report.outcomes)
    assert tree.ensure().built == 0


def test_an_interruption_keeps_what_was_finished(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = recipe_builder.build

    def interrupted(recipe: Path, **options: object) -> list[Path]:
        if recipe.parent.name == "high":
            raise KeyboardInterrupt
        return real(recipe, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(recipe_builder, "build", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tree.ensure()
    assert {name.partition("-")[0] for name in tree.packages()} == {"low"}
    monkeypatch.setattr(recipe_builder, "build", real)
    assert tree.actions() == {"low": "reused", "high": "built"}


@pytest.mark.parametrize(
    ("module", "moment"), [(channel_records, "write_record"), (channel_index, "write")]
)
def test_an_interruption_between_file_and_index(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, module: ModuleType, moment: str
) -> None:
    tree.ensure(["low"])
    real = getattr(module, moment)
    calls = []

    def interrupted(*arguments: object) -> None:
        calls.append(arguments)
        if (
            module is channel_records or len(calls) == 2
        ):  # the first index is the one of the empty channel
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(module, moment, interrupted)
    with pytest.raises(KeyboardInterrupt):
        tree.ensure()
    monkeypatch.undo()
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tree.cache))
    assert len(tree.packages()) == 1, "the index never lists a missing file"
    assert tree.actions()["low"] == "reused"
    assert len(tree.packages()) == 2


def test_the_channel_heals(tree: Tree) -> None:
    tree.ensure()
    pool = tree.cache / "channel" / "pool"
    low = next((pool / "noarch").glob("low-*.conda"))
    low.unlink()
    for folder in (pool, tree.view):
        (folder / "noarch" / "stray.conda").write_bytes(b"")
    next((pool / ".builds").glob("high@*.json")).write_text("{", encoding="utf-8")
    assert tree.actions() == {"low": "built", "high": "built"}
    assert len(tree.packages()) == 2
    assert "stray.conda" in tree.pool
    channel_views.clean(30)
    assert tree.pool == tree.packages()


def test_a_package_cut_short_is_built_again(tree: Tree) -> None:
    tree.ensure(["low"])
    low = next((tree.cache / "channel" / "pool" / "noarch").glob("low-*.conda"))
    low.write_bytes(low.read_bytes()[:-10])
    assert tree.actions(["low"]) == {"low": "built"}
    tree.packages()


def test_a_recipe_that_is_gone_takes_its_package_along(tree: Tree) -> None:
    tree.ensure()
    for path in (tree.root / "toolchain" / "recipes" / "high").iterdir():
        path.unlink()
    tree.ensure()
    assert {name.partition("-")[0] for name in tree.packages()} == {"low"}
    assert tree.update() == []
    assert set(toolchain_lock.read(tree.root).files) == {"low"}


def test_a_damaged_download_is_fetched_again(tree: Tree) -> None:
    tree.ensure(["low"])
    for path in (tree.cache / "downloads" / "sha256").rglob("*.whl"):
        path.write_bytes(b"rotten")
    tree.edit("low")
    assert tree.actions(["low"]) == {"low": "built"}


def test_bytes_that_were_not_locked_stop_the_build(tree: Tree) -> None:
    tree.ensure(["low"])
    tree.wheel("high", "evil = 1\n")
    with pytest.raises(IntegrityError, match=r"high 1\.0"):
        tree.ensure()
    assert {name.partition("-")[0] for name in tree.packages()} == {"low"}


def test_the_error_for_a_missing_version_names_the_update(tree: Tree) -> None:
    (tree.index / "high-1.0-py3-none-any.whl").unlink()
    with pytest.raises(FetchError) as caught:
        tree.ensure()
    assert "vllm-build toolchain --update" in str(caught.value)


def test_a_recipe_must_carry_the_digest(tree: Tree) -> None:
    tree.recipe("low", text=RECIPE.replace('  string: h${{ env.get("TOOLCHAIN_DIGEST") }}_0\n', ""))
    with pytest.raises(BuildError, match="lacks the digest"):
        tree.ensure(["low"])
    assert tree.packages() == set()


def test_a_recipe_that_is_not_locked_yet_does_not_hide_the_others(tree: Tree) -> None:
    tree.recipe("third")
    assert tree.actions(["high"]) == {"low": "built", "high": "built"}
    assert len(tree.packages()) == 2
    with pytest.raises(ConfigurationError, match="third"):
        tree.ensure(["third"])


def test_a_package_that_names_the_work_folder_is_refused(tree: Tree) -> None:
    tree.ensure(["low"])
    tree.recipe(
        "high",
        needs="low",
        text=RECIPE.replace("    env:\n", '      - pwd > "$PREFIX/share/where"\n    env:\n'),
    )
    with pytest.raises(
        BuildError,
        match=r"high-1\.0-h\w+_0\.conda names a folder of this machine: .*/work in share/where",
    ):
        tree.ensure()
    assert {name.partition("-")[0] for name in tree.pool} == {"low"}
    assert {name.partition("-")[0] for name in tree.packages()} == {"low"}


def test_only_named_builds_are_updated(tree: Tree) -> None:
    tree.wheel("low", "changed = 1\n")
    tree.wheel("high", "changed = 1\n")
    assert [file.name for file in tree.update(["high"])] == ["high"]
    with pytest.raises(ConfigurationError, match="called 'x'"):
        tree.update(["x"])
