# SPDX-License-Identifier: Apache-2.0
"""Several checkouts share one channel: views, concurrent builds, cleaning, and identical bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from toolchain_tree import RECIPE, Tree

from vllm_build.conda.environments import conda_environment, solver
from vllm_build.toolchain import channel_views
from vllm_build.util import paths
from vllm_build.util.errors import BusyError
from vllm_build.util.locks import exclusive

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.util.console import Console


@pytest.fixture
def tree(toolchain_tree: Tree) -> Tree:
    return toolchain_tree


def test_a_cleaning_that_does_not_end_is_not_waited_for_without_end(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree.cache / "channel").mkdir(parents=True)
    monkeypatch.setattr(channel_views, "PATIENCE", 0.3)
    with (
        exclusive(tree.cache / "channel", "the toolchain channel"),
        pytest.raises(BusyError, match="toolchain channel"),
    ):
        tree.ensure()


def test_nothing_is_cleaned_during_a_build_or_installation(tree: Tree) -> None:
    tree.ensure()
    before = tree.pool
    with (
        channel_views.in_use(),
        channel_views.in_use(),
        pytest.raises(BusyError, match="toolchain channel"),
    ):
        channel_views.clean(0)
    assert tree.pool == tree.packages() == before
    assert channel_views.clean(0).packages == 2
    assert tree.pool == set()
    assert not tree.view.exists()
    assert tree.actions() == {"low": "built", "high": "built"}


def test_files_of_older_versions_are_cleaned(tree: Tree) -> None:
    tree.ensure()
    old = tree.cache / "channel" / "noarch" / "old-1.0-h0_0.conda"
    old.parent.mkdir()
    old.write_bytes(b"old")
    (tree.cache / "work" / "toolchain" / "killed").mkdir()
    assert channel_views.clean(30).packages == 0, "another checkout may still have that version"
    os.utime(old, (0, 0))
    assert channel_views.clean(30).packages == 1
    assert not old.exists()
    assert not (tree.cache / "work" / "toolchain").exists()
    assert len(tree.packages()) == 2


def test_two_trees_do_not_see_each_others_packages(tree: Tree, console: Console) -> None:
    other = Tree.copied(tree, console)
    other.edit("low")
    tree.ensure()
    mine = tree.packages()
    assert other.actions() == {"low": "built", "high": "built"}
    assert tree.view != other.view
    assert tree.packages() == mine
    assert other.packages().isdisjoint(mine)
    assert tree.actions() == {"low": "reused", "high": "reused"}, (
        "the build of the other tree removed nothing"
    )
    # A solver finds only one package of this name and version.
    for one in (tree, other):
        (record,) = solver.solve_specs(["low"], [one.view.as_uri()])
        assert record.file_name in one.packages()


CHILD = """
import os
import sys
from pathlib import Path
from vllm_build.util.console import Console
from vllm_build.toolchain import channel_build
report = channel_build.ensure(Path(sys.argv[1]), Console(), inherited=os.environ)
print(*sorted(name for outcome in report.outcomes for name in outcome.packages), flush=True)
"""
SLOW = RECIPE.replace(
    '      - mkdir -p "$PREFIX/share"', '      - sleep 3\n      - mkdir -p "$PREFIX/share"'
)


def start(tree: Tree) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(paths.library_folder())}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tree.root)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("same", [True, False], ids=["the same packages", "other packages"])
def test_two_checkouts_build_at_the_same_time(tree: Tree, console: Console, *, same: bool) -> None:
    tree.recipe("low", text=SLOW)
    other = Tree.copied(tree, console)
    if not same:
        other.edit("low")
    children = [start(one) for one in (tree, other)]
    said = [child.communicate(timeout=300) for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    for one, (names, _) in zip((tree, other), said, strict=True):
        assert set(names.split()) == one.packages()
        assert one.actions() == {"low": "reused", "high": "reused"}
    assert len(tree.pool) == (2 if same else 4)
    assert any("waiting for another process that makes low-" in log for _, log in said) == same
    assert {path.suffix for path in (tree.cache / "work" / "toolchain").iterdir()} == {".lock"}


def test_a_reader_is_not_disturbed_by_another_checkout(
    tree: Tree, console: Console, tmp_path: Path
) -> None:
    """In the first version, one checkout's build removed packages that another was installing."""
    tree.ensure()
    solved = solver.solve_specs(["high"], [tree.view.as_uri()])
    other = Tree.copied(tree, console)
    other.edit("low")
    other.ensure()
    assert {record.file_name for record in solved} == tree.packages()
    conda_environment.create(tmp_path / "env", ["high"], [tree.view.as_uri()])
    assert (tmp_path / "env" / "share" / "high-1.0-py3-none-any.whl").is_file()


@pytest.mark.parametrize("seed", range(6))
def test_a_killed_build_leaves_a_sound_channel(tree: Tree, seed: int) -> None:
    child = start(tree)
    time.sleep(0.4 + 0.7 * seed)
    child.kill()
    child.communicate()
    if (tree.view / "noarch" / "repodata.json").is_file():
        tree.packages()
    assert set(tree.actions()) == {"low", "high"}
    assert len(tree.packages()) == 2
    assert tree.actions() == {"low": "reused", "high": "reused"}


def test_two_caches_and_checkouts_give_the_same_bytes(
    tree: Tree, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        '      - printf \'#!%s/bin/sh\\n\' "$PREFIX" > "$PREFIX/share/tool"\n'
        '      - chmod +x "$PREFIX/share/tool"\n    env:\n'
    )
    tree.recipe("low", text=RECIPE.replace("    env:\n", script))
    found = []
    for number, mask in enumerate((0o022, 0o077)):
        one = Tree.copied(tree, console, f"checkout{'-and-more' * number}")
        one.cache = tree.cache.with_name("cache" + "-of-another-length" * number)
        monkeypatch.setenv("VLLM_BUILD_CACHE", str(one.cache))
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(1_600_000_000 + number))
        monkeypatch.setenv("TZ", ("UTC", "Pacific/Kiritimati")[number])
        before = os.umask(mask)
        try:
            assert one.actions() == {"low": "built", "high": "built"}
        finally:
            os.umask(before)
        found.append(
            {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                for path in (one.cache / "channel" / "pool").glob("*/*.conda")
            }
        )
    assert len(found[0]) == 2
    assert found[0] == found[1]
