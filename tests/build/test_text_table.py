# SPDX-License-Identifier: Apache-2.0
"""Tables as lines of text: they fit the width, lose nothing, and break no word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_build.util import text_table

WORDS = st.text(alphabet="abcdefgh-/.", min_size=1, max_size=30)
CELLS = st.lists(WORDS, max_size=20).map(" ".join)


@given(data=st.data(), columns=st.integers(1, 5), width=st.integers(50, 120))
def test_every_word_is_there_and_lines_fit(data: st.DataObject, columns: int, width: int) -> None:
    header = [f"column{index}" for index in range(columns)]
    rows = data.draw(st.lists(st.tuples(*[CELLS] * columns), max_size=5))
    lines = text_table.layout(header, rows, width)
    assert max(map(len, lines), default=0) <= width
    written = sorted(word for row in rows for cell in row for word in cell.split())
    found = sorted(word for line in lines for word in line.split() if not word.startswith("column"))
    assert found == written


def test_columns_are_as_wide_as_what_they_hold() -> None:
    lines = text_table.layout(["name", "n"], [["a", "10"], ["longer", "2"]], 100)
    assert lines == ["    name    n", "    a       10", "    longer  2"]


def test_cells_are_wrapped_between_words() -> None:
    lines = text_table.layout(
        ["name", "text"], [["a", "one two three four five six seven eight nine ten eleven"]], 50
    )
    assert lines == [
        "    name  text",
        "    a     one two three four five six seven eight",
        "          nine ten eleven",
    ]


def test_rows_become_entries_where_columns_would_be_too_narrow() -> None:
    row = ["name", "several words " * 5, "", "more words " * 5]
    assert text_table.layout(["a", "b", "empty", "c"], [row], 50) == [
        "    name",
        "        b  several words several words several",
        "           words several words several words",
        "        c  more words more words more words more",
        "           words more words",
    ]


def test_words_are_never_broken() -> None:
    path = "/a/" + "b" * 100
    assert path in text_table.layout(["what", "path"], [["x", f"in {path}"]], 60)[-1]


def test_wide_characters_take_two_columns() -> None:
    lines = text_table.layout(["a", "b"], [["日本", "x"], ["abcd", "y"]], 60)
    assert lines == ["    a     b", "    日本  x", "    abcd  y"]


def test_continued_lines_keep_their_indentation() -> None:
    assert text_table.wrap("error:\n  to do: one two three", 14) == [
        "error:",
        "  to do: one",
        "  two three",
    ]
    assert text_table.wrap("", 10) == [""]


@pytest.mark.parametrize("width", [1, 5])
def test_no_width_is_too_small(width: int) -> None:
    assert text_table.hang("label  ", "two words", width) == ["label  two", "       words"]
