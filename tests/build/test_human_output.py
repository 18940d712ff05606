# SPDX-License-Identifier: Apache-2.0
"""Output for people fits the terminal, or 100 columns in a pipe; ``--json`` has the same facts."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from vllm_build import cli
from vllm_build.doctor import examination
from vllm_build.doctor.fact import CONTRADICTION, Fact

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = [
    "cache info",
    "digest",
    "digest --explain",
    "jobs --device cpu",
    "jobs --device cuda --toolkit-version 13.0",
    "plan --device cpu",
    "render cpu cuda13",
    "settings",
]
#: A line may be wider if one word, such as a path or a package's name, is long: a word that is cut
#: cannot be copied.
LONGEST = 40


@pytest.fixture(params=[100, 80], ids=["pipe", "terminal of 80"])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The width of lines. The variables make rich write as for a terminal."""
    width: int = request.param
    if width != 100:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", str(width))
    return width


def shown(text: str) -> list[str]:
    """The lines without colour codes."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()


def too_wide(lines: list[str], columns: int) -> list[str]:
    return [line for line in lines if len(line) > columns and max(map(len, line.split())) < LONGEST]


@pytest.mark.parametrize("command", COMMANDS)
def test_lines_fit(command: str, columns: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command.split()) == 0
    lines = shown(capsys.readouterr().err)
    assert lines
    assert too_wide(lines, columns) == []


def test_the_doctors_sentences_fit(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, remedy = "one thing says this " * 8, "set that to something else " * 6
    facts = [Fact("device", "cpu"), Fact("toolkit for cuda", found, remedy, CONTRADICTION)]
    monkeypatch.setattr(examination, "examine", lambda *_: facts)
    assert cli.main(["doctor"]) == 2
    text = shown(capsys.readouterr().err)
    assert max(map(len, text)) <= columns
    assert sorted(" ".join(text).split()) == sorted(
        (
            f"doctor what found remedy device cpu toolkit for cuda {found} {CONTRADICTION}: "
            f"{remedy}"
        ).split()
    )


@pytest.mark.parametrize("variant", ["cpu", "cuda13"])
def test_render_shows_every_requirement(
    variant: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["render", variant, "--output", str(tmp_path)]
    assert cli.main([*command, "--json"]) == 0
    outputs = json.loads(capsys.readouterr().out)[variant]
    assert cli.main(command) == 0
    lines = [line.rstrip() for line in capsys.readouterr().err.splitlines()]
    assert lines[0] == variant
    places = [lines.index(f"    {output['filename']}") for output in outputs]
    assert places == sorted(places)
    for output, begin, end in zip(outputs, places, [*places[1:], len(lines)], strict=True):
        block = lines[begin + 1 : end]
        said = [
            re.sub(r"^ +((subdir|requires|constrains|build number)  +)?", "", line)
            for line in block
            if line.startswith(" ")
        ]
        assert said[0] == output["subdir"]
        # Long lines are folded.
        named = [*output["run"], *output["constrains"]]
        assert "".join("".join(said[1:-1]).split()) == "".join("".join(named).split())
        assert said[-1].split(",")[0] == str(output["number"])
        assert ("low priority" in said[-1]) == output["behind"]
    assert any(output["constrains"] for output in outputs)
    assert "such as libgcc, libstdcxx and __glibc." in " ".join(lines)
