# SPDX-License-Identifier: Apache-2.0
"""Our patches of third-party sources fit exactly or are refused."""

from __future__ import annotations

import contextlib
import difflib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_build.sources import patches
from vllm_build.util.errors import ConfigurationError, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

BEFORE = "one\ntwo\nthree\nfour\nfive\n"
PATCH = """\
Why this is done.

--- a/src/x.h
+++ b/src/x.h
@@ -2,3 +2,4 @@ in function f
 two
-three
+THREE
+3
 four
"""


def test_a_change() -> None:
    (patch,) = patches.parse(PATCH, "x.patch")
    assert patch == patches.Patch(
        "src/x.h", (patches.Hunk(2, ("two", "three", "four"), ("two", "THREE", "3", "four")),)
    )
    assert patches.apply(patch, BEFORE, "there") == "one\ntwo\nTHREE\n3\nfour\nfive\n"


def test_an_empty_line_without_its_space() -> None:
    (patch,) = patches.parse("--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n-a\n+b\n\n c\n", "f.patch")
    assert patches.apply(patch, "a\n\nc\n", "f") == "b\n\nc\n"


@pytest.mark.parametrize(
    "text", ["", "one\ntwo\nthree\n", "zero\n" + BEFORE, BEFORE.replace("four", "for")]
)
def test_other_sources(text: str) -> None:
    (patch,) = patches.parse(PATCH, "x.patch")
    with pytest.raises(IntegrityError, match=r"our patch of src/x\.h does not fit there at line 2"):
        patches.apply(patch, text, "there")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("--- a/src/x.h\n", "", "changes nothing"),
        ("--- a/", "--- ", r"x\.patch:3: not the same file before and after"),
        ("+++ b/src/x.h", "+++ b/src/y.h", "not the same file before and after"),
        ("--- a/src/x.h", "--- /dev/null", "not the same file before and after"),
        ("@@ -2,3", "@@ -x,3", "does not begin a hunk"),
        (" four\n", "", "cut short"),
        ("-2,3", "-2,2", "longer than its header says"),
        (" four\n", " four\nfive\n", r"x\.patch:11: 'five' does not belong to a hunk"),
    ],
)
def test_what_is_no_patch(old: str, new: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        patches.parse(PATCH.replace(old, new, 1), "x.patch")


def test_a_folder(tmp_path: Path) -> None:
    assert patches.read(tmp_path / "none") == ()
    (tmp_path / "b.patch").write_text(PATCH)
    (tmp_path / "a.patch").write_text(PATCH.replace("x.h", "y.h"))
    (tmp_path / "README.md").write_text("no patch")
    assert [patch.path for patch in patches.read(tmp_path)] == ["src/y.h", "src/x.h"]
    (tmp_path / "c.patch").write_text(PATCH)
    with pytest.raises(ConfigurationError, match=r"src/x\.h is changed twice"):
        patches.read(tmp_path)


LINES = st.lists(st.sampled_from(["", "a", "b", " c", "-d", "+e", "@@"]), max_size=12)


@given(LINES, LINES, st.integers(0, 4))
def test_a_difference_applied_is_the_other_text(
    old: list[str], new: list[str], context: int
) -> None:
    difference = list(difflib.unified_diff(old, new, "a/f", "b/f", lineterm="", n=context))
    if old == new:
        return
    (patch,) = patches.parse("\n".join(difference) + "\n", "f.patch")
    assert (
        patches.apply(patch, "\n".join(old) if old else "", "f") == "\n".join(new)
        or not old
        or not new
    )


@given(st.text(alphabet="ab -+@\n,/1") | st.text())
def test_any_text_is_changes_or_a_clear_error(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        assert patches.parse(text, "f.patch")
