# SPDX-License-Identifier: Apache-2.0
"""The channel with real, tiny packages: what is built, what is reused, and what an interruption leaves."""

from __future__ import annotations

import hashlib
import json
import zipfile
from typing import TYPE_CHECKING

import pytest

from vllm_build.conda import rattler
from vllm_build.errors import BuildError, BusyError, ConfigurationError, FetchError, IntegrityError
from vllm_build.locks import exclusive
from vllm_build.toolchain import channel, update
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
        """The package files of the channel, after a check that its index names exactly these, with their sha256."""
        folder = self.cache / "channel"
        found = {path.name: path for path in folder.glob("*/*.conda")}
        listed = {}
        for subdir in ("linux-64", "noarch"):
            listed.update(json.loads((folder / subdir / "repodata.json").read_text(encoding="utf-8"))["packages.conda"])
        assert set(listed) == set(found)
        for name, path in found.items():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == listed[name]["sha256"]
        return set(found)


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
    recipe = tree.root / "toolchain" / "recipes" / "high" / "recipe.yaml"
    recipe.write_text(recipe.read_text(encoding="utf-8") + "about:\n  summary: another one\n", encoding="utf-8")
    assert tree.actions() == {"low": "reused", "high": "built"}
    second = tree.packages()
    assert len(second) == 2
    assert len(first & second) == 1, "the superseded package is gone, the other is untouched"
    assert {name for name, folder in extracted.items() if folder.exists()} == first & second, "and so is what was extracted from it"


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
    assert report.url == (tree.cache / "channel").as_uri()
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
    index = json.loads((tree.cache / "channel" / "noarch" / "repodata.json").read_text(encoding="utf-8"))["packages.conda"]
    assert all((tree.cache / "channel" / "noarch" / name).is_file() for name in index), "the index never names what is not there"
    assert tree.actions()["low"] == "reused"
    assert len(tree.packages()) == 2


def test_the_channel_heals(tree: Tree) -> None:
    tree.ensure()
    folder = tree.cache / "channel" / "noarch"
    low = next(folder.glob("low-*.conda"))
    low.unlink()
    (folder / "stray.conda").write_bytes(b"")
    (tree.cache / "channel" / ".builds" / "high.json").write_text("{", encoding="utf-8")
    assert tree.actions() == {"low": "built", "high": "built"}
    assert len(tree.packages()) == 2


def test_a_package_cut_short_is_built_again(tree: Tree) -> None:
    tree.ensure(["low"])
    low = next((tree.cache / "channel" / "noarch").glob("low-*.conda"))
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
    recipe = tree.root / "toolchain" / "recipes" / "low" / "recipe.yaml"
    recipe.write_text(recipe.read_text(encoding="utf-8") + "about:\n  summary: another one\n", encoding="utf-8")
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


def test_a_recipe_must_carry_the_digest(tree: Tree) -> None:
    tree.recipe("low", text=RECIPE.replace('  string: h${{ env.get("TOOLCHAIN_DIGEST") }}_0\n', ""))
    with pytest.raises(BuildError, match="does not carry the digest"):
        tree.ensure(["low"])
    assert tree.packages() == set()


def test_one_build_at_a_time(tree: Tree) -> None:
    (tree.cache / "channel").mkdir(parents=True)
    with exclusive(tree.cache / "channel", "the toolchain channel"), pytest.raises(BusyError, match="toolchain channel"):
        tree.ensure()


def test_only_named_builds_are_updated(tree: Tree) -> None:
    tree.wheel("low", "changed = 1\n")
    tree.wheel("high", "changed = 1\n")
    assert [file.name for file in tree.update(["high"])] == ["high"]
    with pytest.raises(ConfigurationError, match="called 'x'"):
        tree.update(["x"])
