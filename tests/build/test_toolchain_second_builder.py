# SPDX-License-Identifier: Apache-2.0
"""A second process makes wheels for the channel while the first one makes recipes."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import pytest
from rich.console import Console as RichConsole
from toolchain_wheels import write_table, write_wheel

from vllm_build.native import machine_limits
from vllm_build.toolchain import (
    build_order,
    channel_build,
    second_builder,
    second_child,
    toolchain_builds,
)
from vllm_build.util.console import Console
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.files import sha256_of
from vllm_build.util.processes import children

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from toolchain_tree import Tree

WHEELS = ["one", "three", "two"]


@pytest.fixture
def tree(toolchain_tree: Tree) -> Tree:
    """A tree with two recipes and three wheels."""
    for name in WHEELS:
        write_wheel(toolchain_tree.index, name)
    lines = "".join(f'{name} = "{name}==1.0"\n' for name in WHEELS)
    write_table(toolchain_tree.root, f"[wheels]\n{lines}")
    toolchain_tree.update(WHEELS)
    return toolchain_tree


def limits(monkeypatch: pytest.MonkeyPatch, cpus: int, gibibytes: int | None) -> None:
    memory = [] if gibibytes is None else [machine_limits.Limit(gibibytes << 30, "")]
    monkeypatch.setattr(machine_limits, "cpu_limits", lambda: [machine_limits.Limit(cpus, "")])
    monkeypatch.setattr(machine_limits, "memory_limits", lambda: memory)


def test_it_takes_a_second_processor_and_memory_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    def worthwhile(cpus: int, gibibytes: int | None, wheels: int = second_builder.LEAST) -> bool:
        limits(monkeypatch, cpus, gibibytes)
        return second_builder.is_worthwhile(wheels)

    assert worthwhile(2, 8)
    assert worthwhile(2, None), "a system that tells nothing about its memory"
    assert not worthwhile(1, 8)
    assert not worthwhile(2, 3)
    assert not worthwhile(2, 8, second_builder.LEAST - 1)


def test_recipes_and_what_they_need_come_first(tree: Tree) -> None:
    tree.recipe("high", needs="one")
    builds = toolchain_builds.load(tree.root)
    first, rest = build_order.split(builds)
    assert [build.id for build in first] == ["one", "high", "low"]
    assert [build.id for build in rest] == ["three", "two"]


def test_what_the_engine_imports_comes_last(root: Path) -> None:
    first, rest = build_order.split(toolchain_builds.load(root))
    assert {"certifi", "transformers", "regex-3.13"} <= {build.id for build in rest}
    assert {"numpy-3.11", "pip", "pytorch-3.13"} <= {build.id for build in first}


def test_the_second_process_makes_the_same_packages(
    tree: Tree, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tree.ensure()
    alone = {path.name: sha256_of(path) for path in tree.view.glob("noarch/*.conda")}
    tree.cache.rename(tmp_path / "first")
    tree.ensure(["low"])
    chosen = [build for build in toolchain_builds.load(tree.root) if build.wheel is not None]
    # The first process fetches the wheels.
    channel_build._Builder.of(tree.root, tree.console, os.environ, chosen, chosen).fetch_wheels(
        chosen
    )
    made = tmp_path / "made"
    assert second_child.main(str(tree.root), str(made), "two", "one") == 0
    assert made.read_text(encoding="utf-8").split() == ["two", "one"]
    assert second_child.main(str(tree.root), str(made), "one") == 0
    assert made.read_text(encoding="utf-8").split() == ["two", "one"], "it was there"
    assert tree.actions() == {
        "high": "built",
        "low": "reused",
        "one": "reused",
        "three": "built",
        "two": "reused",
    }
    assert {path.name: sha256_of(path) for path in tree.view.glob("noarch/*.conda")} == alone
    assert "Traceback" not in capfd.readouterr().err


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines of second processes, which are started for any number of wheels."""
    commands: list[list[str]] = []
    module: Callable[..., list[str]] = children.module

    def recorded(name: str, *arguments: str) -> list[str]:
        commands.append([name, *arguments])
        return module(name, *arguments)

    limits(monkeypatch, 2, 8)
    monkeypatch.setattr(second_builder, "LEAST", 1)
    monkeypatch.setattr(children, "module", recorded)
    return commands


def test_both_processes_together_make_everything(tree: Tree, asked: list[list[str]]) -> None:
    assert set(tree.actions().values()) == {"built"}, "whichever process made it"
    command = next(line for line in asked if line[0].endswith("second_child"))
    assert command[1] == str(tree.root)
    assert command[3:] == ["two", "three", "one"], "from the other end"
    assert len(tree.packages()) == len(WHEELS) + 2
    asked.clear()
    assert set(tree.actions().values()) == {"reused"}
    assert not [line for line in asked if line[0].endswith("second_child")]


def test_the_first_process_reports_what_fails(tree: Tree, asked: list[list[str]]) -> None:
    """The second process fails at once; the first comes to the same wheel."""
    write_wheel(tree.index, "two", about={})
    tree.update(["two"])
    with pytest.raises(ConfigurationError, match=r"two-1\.0-.*\.whl contains no license text"):
        tree.ensure()
    assert asked
    assert not children._ALIVE, "no process is left"


def test_what_the_second_process_said_is_shown_if_only_it_failed(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    console = Console(_rich=RichConsole(file=screen, highlight=False, soft_wrap=True))
    limits(monkeypatch, 2, 8)
    monkeypatch.setattr(second_builder, "LEAST", 1)
    with second_builder.running(tmp_path / "no-tree", ["two"], os.environ, console) as made:
        assert made == set()
    assert made == set()
    assert "has no */sources.toml" in screen.getvalue()
    assert tree.root.is_dir()
