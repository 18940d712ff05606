# SPDX-License-Identifier: Apache-2.0
"""What a person at a terminal sees, and what a pipe gets."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console as RichConsole

from vllm_build.util.console import Console


@pytest.fixture(params=[True, False], ids=["terminal", "pipe"])
def terminal(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def screen(terminal: bool) -> io.StringIO:  # noqa: FBT001 - a fixture's name is its argument
    assert terminal in (True, False)
    return io.StringIO()


@pytest.fixture
def shown(terminal: bool, screen: io.StringIO) -> Console:  # noqa: FBT001 - as above
    rich = RichConsole(
        file=screen,
        force_terminal=terminal,
        width=100,
        highlight=False,
        soft_wrap=True,
        color_system=None,
    )
    return Console(_rich=rich)


def test_steps_say_how_they_ended_and_how_long_they_took(
    shown: Console, screen: io.StringIO
) -> None:
    with shown.step("fetch"):
        pass
    with pytest.raises(ValueError, match="broken"), shown.step("build"):
        raise ValueError("broken")
    with shown.step("fetch"):
        pass
    text = screen.getvalue()
    assert text.count("==> fetch") == 2
    assert "<== fetch: done after" in text
    assert "<== build: stopped after" in text
    assert set(shown.seconds) == {"fetch", "build"}


def test_progress_is_a_bar_where_somebody_looks(
    shown: Console, screen: io.StringIO, *, terminal: bool
) -> None:
    with shown.progress(4, "four parts") as counter:
        for _ in range(4):
            counter.advance()
    text = screen.getvalue()
    assert "four parts" in text
    assert ("4/4" in text) == terminal


def test_details_are_for_logs_and_for_those_who_ask(
    shown: Console, screen: io.StringIO, *, terminal: bool
) -> None:
    shown.detail("a line of a tool")
    assert ("a line of a tool" in screen.getvalue()) != terminal
    shown.verbose = True
    shown.detail("another")
    assert "another" in screen.getvalue()


def test_tables(shown: Console, screen: io.StringIO) -> None:
    shown.table("packages", ["file", "size"], [["a", "1"], ["b\nc", "22"]])
    assert [line.strip() for line in screen.getvalue().splitlines()] == [
        "packages",
        "file  size",
        "a     1",
        "b     22",
        "c",
    ]


def test_tables_fit_the_width(shown: Console, screen: io.StringIO) -> None:
    sentence = "a sentence of several words that goes on " * 5
    shown.table("t", ["what", "found", "remedy"], [["row", sentence, sentence]])
    shown.entries("e", [("head", [("label", sentence), ("empty", "")])])
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= shown.width == 100
    assert screen.getvalue().split().count("sentence") == 15
    assert "empty" not in screen.getvalue()


@pytest.mark.parametrize(("width", "used"), [(80, 80), (20, 40)])
def test_a_terminal_says_how_wide_it_is(width: int, used: int) -> None:
    assert (
        Console(_rich=RichConsole(file=io.StringIO(), force_terminal=True, width=width)).width
        == used
    )


def test_tables_show_no_secret_whatever_the_width(shown: Console, screen: io.StringIO) -> None:
    address = "https://me:hunter2@example.org/" + "x" * 120
    shown.table("t https://me:hunter2@example.org", ["a", "b"], [["word " * 30, address]])
    shown.entries("e", [(address, [("label", address)])])
    shown.text("t", [address])
    assert "hunter2" not in screen.getvalue()
    assert screen.getvalue().count("me:***@") == 5


def test_quiet_keeps_warnings_and_errors(shown: Console, screen: io.StringIO) -> None:
    shown.quiet = True
    shown.info("news")
    shown.detail("detail")
    shown.table("table", ["x"], [["y"]])
    with shown.step("step"), shown.progress(1, "bar") as counter:
        counter.advance()
    assert not screen.getvalue()
    shown.warn("odd")
    shown.error("wrong")
    assert "warning: odd" in screen.getvalue()
    assert "error: wrong" in screen.getvalue()


def test_markup_in_messages_is_text(shown: Console, screen: io.StringIO) -> None:
    shown.info("[bold]not bold[/bold]")
    assert "[bold]not bold[/bold]" in screen.getvalue()


def test_words_between_colons_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    Console().info("a:heart:b")
    Console().table("t", ["x"], [[":warning:"]])
    assert capsys.readouterr().err == "a:heart:b\nt\n    x\n    :warning:\n"


def test_the_answer_goes_to_stdout(
    shown: Console, screen: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    shown.json({"b": 1, "a": [2]})
    shown.output("text")
    assert capsys.readouterr().out == json.dumps({"b": 1, "a": [2]}, indent=2) + "\ntext\n"
    assert not screen.getvalue()


def test_json_mode_shows_no_table(shown: Console, screen: io.StringIO) -> None:
    shown.json_mode = True
    shown.table("table", ["x"], [["y"]])
    shown.entries("entries", [("x", [("y", "z")])])
    shown.text("text", ["line"])
    assert not screen.getvalue()
