# SPDX-License-Identifier: Apache-2.0
"""The channel with real, tiny packages: what is built, what is reused, and what an interruption leaves."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from typing import TYPE_CHECKING

import pytest

from vllm_build import paths
from vllm_build.conda import environment, rattler
from vllm_build.errors import BuildError, BusyError, ConfigurationError, FetchError, IntegrityError
from vllm_build.locks import exclusive
from vllm_build.toolchain import channel, update, views
from vllm_build.toolchain import lock as locking

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.console import Console
    from vllm_build.toolchain.channel import ChannelReport

RECIPE = """
context:
  version: ${{ env.get("TOOLCHAIN_VERSION") }}
package:
  name: NAME
  version: ${{ version }}
build:
  string: h${{ env.get("TOOLCHAIN_DIGEST") }}_0
  noarch: generic
  script:
    content:
      - mkdir -p "$PREFIX/share"
      - cp "$TOOLCHAIN_SOURCES"/* "$PREFIX/share/"
    env:
      TOOLCHAIN_SOURCES: ${{ env.get("TOOLCHAIN_SOURCES") }}
requirements:
  run: RUN
"""


class Tree:
    """A source tree with two recipes, ``low`` and ``high`` that needs it, and an index that pip reads."""

    def __init__(self, folder: Path, console: Console) -> None:
        self.root = folder / "tree"
        self.index = folder / "index"
        self.cache = folder / "cache"
        self.console = console
        self.index.mkdir(parents=True)
        self.recipe("low")
        self.recipe("high", needs="low")
        for name in ("low", "high"):
            self.wheel(name)

    @classmethod
    def copied(cls, other: Tree, console: Console, name: str = "checkout") -> Tree:
        """Another checkout with the same content, the same index and the same cache."""
        made = cls.__new__(cls)
        made.root, made.index, made.cache, made.console = other.root.with_name(name), other.index, other.cache, console
        shutil.copytree(other.root, made.root)
        return made

    def recipe(self, name: str, *, needs: str = "", text: str = RECIPE) -> None:
        folder = self.root / "toolchain" / "recipes" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(text.replace("NAME", name).replace("RUN", f"[{needs}]"), encoding="utf-8")
        line = f'needs = ["{needs}"]\n' if needs else ""
        sources = f'[[build]]\nid = "{name}"\n{line}[[build.source]]\ntype = "pypi"\nrequirement = "{name}==1.0"\n'
        (folder / "sources.toml").write_text(sources, encoding="utf-8")

    def wheel(self, name: str, content: str = "") -> Path:
        path = self.index / f"{name}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{name}.py", content)
            archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            archive.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        return path

    def update(self, only: list[str] | None = None) -> list[locking.LockedFile]:
        return update.update(self.root, self.console, only)

    def ensure(self, only: list[str] | None = None) -> ChannelReport:
        return channel.ensure(self.root, self.console, only)

    def actions(self, only: list[str] | None = None) -> dict[str, str]:
        return {outcome.id: outcome.action for outcome in self.ensure(only).outcomes}

    def packages(self) -> set[str]:
        """The packages that this tree sees, after a check that each one that the index names is there, with its sha256."""
        listed = {}
        for subdir in ("linux-64", "noarch"):
            index = json.loads((self.view / subdir / "repodata.json").read_text(encoding="utf-8"))["packages.conda"]
            listed |= {name: (self.view / subdir / name, entry["sha256"]) for name, entry in index.items()}
        for path, sha256 in listed.values():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
        return set(listed)

    @property
    def view(self) -> Path:
        return views.view_of(self.root)

    @property
    def pool(self) -> set[str]:
        return {path.name for path in (self.cache / "channel" / "pool").glob("*/*.conda")}

    def edit(self, name: str) -> None:
        """Change the recipe ``name`` so that its package is another one."""
        with (self.root / "toolchain" / "recipes" / name / "recipe.yaml").open("a", encoding="utf-8") as stream:
            stream.write("about:\n  summary: another one\n")


@pytest.fixture
def tree(tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch) -> Tree:
    made = Tree(tmp_path, console)
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(made.cache))
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.index))
    made.update()
    return made


def test_only_what_changed_is_built(tree: Tree) -> None:
    assert tree.actions() == {"low": "built", "high": "built"}
    first = tree.packages()
    assert tree.actions() == {"low": "reused", "high": "reused"}
    assert tree.packages() == first
    extracted = {name: tree.cache / "rattler" / "pkgs" / name.removesuffix(".conda") for name in first}
    for folder in extracted.values():
        folder.mkdir(parents=True, exist_ok=True)
    before = tree.view
    tree.edit("high")
    assert tree.actions() == {"low": "reused", "high": "built"}
    second = tree.packages()
    assert len(second) == 2
    assert len(first & second) == 1, "the superseded package is no longer seen, the other is untouched"
    assert all(folder.exists() for folder in extracted.values()), "somebody may be installing it"
    assert tree.pool == first | second
    long_ago = 0
    os.utime(before / ".used", (long_ago, long_ago))
    cleaned = views.clean(30)
    assert (cleaned.views, cleaned.packages) == (1, 1)
    assert cleaned.size > 0
    assert tree.pool == tree.packages() == second
    assert {name for name, folder in extracted.items() if folder.exists()} == first & second, "and so is what was extracted from it"
    assert tree.actions() == {"low": "reused", "high": "reused"}


def test_a_change_below_reaches_what_needs_it(tree: Tree) -> None:
    tree.ensure()
    digest = channel.channel_digest(tree.root)
    tree.wheel("low", "changed = 1\n")
    assert [file.name for file in tree.update()] == ["low"]
    assert channel.channel_digest(tree.root) != digest
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
    assert report.digest == channel.channel_digest(tree.root)
    assert {name for outcome in report.outcomes for name in outcome.packages} == tree.packages()
    assert all(outcome.size > 0 for outcome in report.outcomes)
    assert tree.ensure().built == 0


def test_an_interruption_keeps_what_was_finished(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rattler.build

    def interrupted(recipe: Path, **options: object) -> list[Path]:
        if recipe.parent.name == "high":
            raise KeyboardInterrupt
        return real(recipe, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(rattler, "build", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tree.ensure()
    assert {name.partition("-")[0] for name in tree.packages()} == {"low"}
    monkeypatch.setattr(rattler, "build", real)
    assert tree.actions() == {"low": "reused", "high": "built"}


@pytest.mark.parametrize("moment", ["write_record", "write_index"])
def test_an_interruption_between_file_and_index(tree: Tree, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    tree.ensure(["low"])
    real = getattr(channel.repodata, moment)
    calls = []

    def interrupted(*arguments: object) -> None:
        calls.append(arguments)
        if moment == "write_record" or len(calls) == 2:  # the first index is the one of the clean start
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(channel.repodata, moment, interrupted)
    with pytest.raises(KeyboardInterrupt):
        tree.ensure()
    monkeypatch.undo()
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tree.cache))
    assert len(tree.packages()) == 1, "the index never names what is not there"
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
    views.clean(30)
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
    assert set(locking.read(tree.root).files) == {"low"}


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


def test_a_version_that_is_gone_names_the_update(tree: Tree) -> None:
    (tree.index / "high-1.0-py3-none-any.whl").unlink()
    with pytest.raises(FetchError) as caught:
        tree.ensure()
    assert "vllm-build toolchain --update" in str(caught.value)


def test_an_alternative_is_taken_where_the_first_is_not_found(tree: Tree) -> None:
    sources = tree.root / "toolchain" / "recipes" / "low" / "sources.toml"
    extra = 'alternative = "second==1.0"\nextras = ["third==1.0"]\n'
    sources.write_text(sources.read_text(encoding="utf-8") + extra, encoding="utf-8")
    tree.wheel("second")
    tree.wheel("third")
    tree.update()
    assert {(file.name, file.choice) for file in locking.read(tree.root).of_build("low")} == {
        ("low", "first"),
        ("second", "second"),
        ("third", "second"),
    }
    (tree.index / "low-1.0-py3-none-any.whl").unlink()
    assert tree.actions(["low"]) == {"low": "built"}
    assert locking.read(tree.root).of_build("low")[-1].name == "third", "the alternative itself comes first and names the version"
    assert {path.name for path in (tree.cache / "downloads" / "sha256").rglob("*.whl")} == {
        "second-1.0-py3-none-any.whl",
        "third-1.0-py3-none-any.whl",
    }


def test_a_recipe_must_carry_the_digest(tree: Tree) -> None:
    tree.recipe("low", text=RECIPE.replace('  string: h${{ env.get("TOOLCHAIN_DIGEST") }}_0\n', ""))
    with pytest.raises(BuildError, match="does not carry the digest"):
        tree.ensure(["low"])
    assert tree.packages() == set()


def test_a_cleaning_that_does_not_end_is_not_waited_for_without_end(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree.cache / "channel").mkdir(parents=True)
    monkeypatch.setattr(views, "PATIENCE", 0.3)
    with exclusive(tree.cache / "channel", "the toolchain channel"), pytest.raises(BusyError, match="toolchain channel"):
        tree.ensure()


def test_nothing_is_cleaned_while_somebody_builds_or_installs(tree: Tree) -> None:
    tree.ensure()
    before = tree.pool
    with views.in_use(), views.in_use(), pytest.raises(BusyError, match="toolchain channel"):
        views.clean(0)
    assert tree.pool == tree.packages() == before
    assert views.clean(0).packages == 2
    assert tree.pool == set()
    assert not tree.view.exists()
    assert tree.actions() == {"low": "built", "high": "built"}


def test_what_older_versions_left_is_cleaned(tree: Tree) -> None:
    tree.ensure()
    old = tree.cache / "channel" / "noarch" / "old-1.0-h0_0.conda"
    old.parent.mkdir()
    old.write_bytes(b"old")
    (tree.cache / "work" / "toolchain" / "killed").mkdir()
    assert views.clean(30).packages == 0, "another checkout may still be of that version"
    os.utime(old, (0, 0))
    assert views.clean(30).packages == 1
    assert not old.exists()
    assert not (tree.cache / "work" / "toolchain").exists()
    assert len(tree.packages()) == 2


def test_a_recipe_that_is_not_locked_yet_does_not_hide_the_others(tree: Tree) -> None:
    tree.recipe("third")
    assert tree.actions(["high"]) == {"low": "built", "high": "built"}
    assert len(tree.packages()) == 2
    with pytest.raises(ConfigurationError, match="third"):
        tree.ensure(["third"])


def test_two_trees_do_not_see_each_others_packages(tree: Tree, console: Console) -> None:
    other = Tree.copied(tree, console)
    other.edit("low")
    tree.ensure()
    mine = tree.packages()
    assert other.actions() == {"low": "built", "high": "built"}
    assert tree.view != other.view
    assert tree.packages() == mine
    assert other.packages().isdisjoint(mine)
    assert tree.actions() == {"low": "reused", "high": "reused"}, "the other one took nothing away"
    # What a solver may choose from, for the same name and version, is one package only.
    for one in (tree, other):
        (record,) = environment.solve_specs(["low"], [one.view.as_uri()])
        assert record.file_name in one.packages()


CHILD = """
import sys
from pathlib import Path
from vllm_build.console import Console
from vllm_build.toolchain import channel
report = channel.ensure(Path(sys.argv[1]), Console())
print(*sorted(name for outcome in report.outcomes for name in outcome.packages), flush=True)
"""
SLOW = RECIPE.replace('      - mkdir -p "$PREFIX/share"', '      - sleep 3\n      - mkdir -p "$PREFIX/share"')


def start(tree: Tree) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(paths.library_folder())}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tree.root)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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


def test_a_reader_is_not_disturbed_by_another_checkout(tree: Tree, console: Console, tmp_path: Path) -> None:
    """The fault of the first version: a second checkout's run removed what the first one was installing from."""
    tree.ensure()
    solved = environment.solve_specs(["high"], [tree.view.as_uri()])
    other = Tree.copied(tree, console)
    other.edit("low")
    other.ensure()
    assert {record.file_name for record in solved} == tree.packages()
    environment.create(tmp_path / "env", ["high"], [tree.view.as_uri()])
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


def test_only_named_builds_are_updated(tree: Tree) -> None:
    tree.wheel("low", "changed = 1\n")
    tree.wheel("high", "changed = 1\n")
    assert [file.name for file in tree.update(["high"])] == ["high"]
    with pytest.raises(ConfigurationError, match="called 'x'"):
        tree.update(["x"])


def test_a_package_that_names_the_work_folder_is_refused(tree: Tree) -> None:
    tree.ensure(["low"])
    tree.recipe("high", needs="low", text=RECIPE.replace("    env:\n", '      - pwd > "$PREFIX/share/where"\n    env:\n'))
    with pytest.raises(BuildError, match=r"high-1\.0-h\w+_0\.conda names a folder of this machine: .*/work in share/where"):
        tree.ensure()
    assert {name.partition("-")[0] for name in tree.pool} == {"low"}
    assert {name.partition("-")[0] for name in tree.packages()} == {"low"}


def test_two_caches_and_checkouts_give_the_same_bytes(tree: Tree, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    script = '      - printf \'#!%s/bin/sh\\n\' "$PREFIX" > "$PREFIX/share/tool"\n      - chmod +x "$PREFIX/share/tool"\n    env:\n'
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
            {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (one.cache / "channel" / "pool").glob("*/*.conda")}
        )
    assert len(found[0]) == 2
    assert found[0] == found[1]
