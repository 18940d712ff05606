# SPDX-License-Identifier: Apache-2.0
"""The reader of checked records: its messages have the right place and the document's words."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_build.sources import third_party
from vllm_build.toolchain import toolchain_builds, toolchain_lock
from vllm_build.util import record_reader
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.record_reader import Document, Record

if TYPE_CHECKING:
    from collections.abc import Callable

FILE = Path("table.toml")
TEXT = """
[settings]
name = "first"
count = 3
[[item]]
name = "one"
names = [
    "a",
    "b",
]
[[item.part]]
name = "left"
[[item.part]]
name = "right"
[[item]]
name = "two"
by = { a = "x" }
flag = true
size = 10
[[item.part]]
name = "left"
"""


def test_every_kind_of_value() -> None:
    one, two = Document(FILE, TEXT).root.records("item", "[[item]]")
    assert one.text("name", re.compile("[a-z]+")) == "one"
    assert one.texts("names", re.compile("[ab]"), choices=("a", "b")) == ("a", "b")
    assert (two.texts("names", required=False), one.text("other", default="x")) == ((), "x")
    assert two.texts_by("by") == {"a": "x"}
    assert two.texts_by("absent") == {}
    assert (two.flag("flag"), two.flag("absent"), two.flag("none", default=True)) == (
        True,
        False,
        True,
    )
    assert (two.number("size"), two.number("absent", default=7)) == (10, 7)
    assert [part.text("name") for part in one.records("part", "a part")] == ["left", "right"]
    assert Document(FILE, TEXT).root.table("settings").number("count", least=3) == 3


@pytest.mark.parametrize(
    ("read", "line", "message"),
    [
        (lambda of: of[1].text("missing"), 15, "[[item]] has no 'missing'"),
        (lambda of: of[1].text("size"), 19, "size = 10 is not valid"),
        (lambda of: of[1].text("name", re.compile("[A-Z]+")), 16, "name = 'two' is not valid"),
        (lambda of: of[0].text("name", choices=("x", "y")), 6, "unknown name 'one'"),
        (lambda of: of[1].texts("name"), 16, "name = 'two' is not valid"),
        (lambda of: of[0].texts("names", choices=("a",)), 7, "'b' in 'names' is not known"),
        (lambda of: of[0].texts("names", re.compile("a")), 9, "'b' in 'names' is not valid"),
        (lambda of: of[1].flag("size"), 19, "size = 10 is not valid"),
        (lambda of: of[1].number("size", least=11), 19, "size = 10 is not valid"),
        (lambda of: of[1].number("flag"), 18, "flag = True is not valid"),
        (lambda of: of[1].sha256("name"), 16, "name is malformed"),
        (lambda of: of[1].texts_by("by", re.compile("y")), 17, "by = {'a': 'x'} is not valid"),
        (
            lambda of: of[1].allow("name", "by", "flag", "part"),
            19,
            "unknown key 'size' in [[item]]",
        ),
        # Two records, one inside the other, have the same key on different lines.
        (lambda of: of[0].records("part", "a part")[1].text("gone"), 13, "a part has no 'gone'"),
        (
            lambda of: of[0].records("part", "a part")[1].number("name"),
            14,
            "name = 'right' is not valid",
        ),
        (
            lambda of: of[1].records("part", "a part")[0].number("name"),
            21,
            "name = 'left' is not valid",
        ),
        (lambda of: of[1].records("name", "a name"), 16, "the table has no [[name]] records"),
        (
            lambda of: of[1].document.root.table("settings").text("count"),
            4,
            "count = 3 is not valid",
        ),
        (
            lambda of: of[1].document.root.table("nothing").text("count"),
            1,
            "[nothing] has no 'count'",
        ),
        (lambda of: of[1].document.root.allow("item"), 2, "unknown key 'settings' in the file"),
    ],
)
def test_a_mistake_is_on_its_line(
    read: Callable[[list[Record]], Any], line: int, message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(Document(FILE, TEXT).root.records("item", "[[item]]"))
    assert caught.value.message == f"table.toml:{line}: {message}"
    assert caught.value.expected
    assert caught.value.remedy == "correct that line of table.toml"


def test_a_document_may_have_words_and_a_remedy_of_its_own() -> None:
    document = Document(
        FILE, TEXT, remedy="run it again", words={"missing": "{key} is gone from {what}"}
    )
    with pytest.raises(
        ConfigurationError, match=r"table\.toml:5: other is gone from \[\[item\]\]"
    ) as caught:
        document.root.records("item", "[[item]]")[0].text("other")
    assert caught.value.remedy == "run it again"
    with pytest.raises(ConfigurationError, match="not valid TOML") as caught:
        Document(FILE, "[", remedy="run it again")
    assert caught.value.remedy == "run it again"


def test_a_document_that_is_not_there(tmp_path: Path) -> None:
    assert record_reader.read_document(tmp_path / "none.toml", "a table") is None
    with pytest.raises(ConfigurationError, match=r"none\.toml: No such file"):
        record_reader.require_document(tmp_path / "none.toml", "a table")
    (tmp_path / "bad.toml").write_bytes(b'a = "\xff"')
    with pytest.raises(ConfigurationError, match=r"bad\.toml is not UTF-8 at byte 5"):
        record_reader.read_document(tmp_path / "bad.toml", "a table")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        record_reader.read_document(tmp_path, "a table")


SOURCES = """
[[build]]
id = "a"
[[build.source]]
type = "pypi"
requirement = "x==1"
[[build]]
id = "b"
[[build.source]]
type = "apt"
suite = "bookworm"
packages = ["libc6"]
[[build.source]]
type = "pypi"
requirement = "x==1"
python = "three"
"""


def test_sources_of_a_recipe_name_the_line_of_their_own_record(tmp_path: Path) -> None:
    """If an earlier record has the same value, the message must not name its line."""
    (tmp_path / "recipe.yaml").touch()
    path = tmp_path / "sources.toml"
    for before, after, line in (
        ('python = "three"', 'url = "x"', 16),
        ('requirement = "x==1"\npython = "three"', 'requirement = "x>1"', 15),
        ('python = "three"', 'python = "pypi"', 16),
        (
            '["libc6"]\n[[build.source]]\ntype = "pypi"',
            '["libc6"]\n[[build.source]]\ntype = "build"',
            14,
        ),
    ):
        assert SOURCES.count(before) == 1
        path.write_text(SOURCES.replace(before, after), encoding="utf-8")
        with pytest.raises(ConfigurationError) as caught:
            toolchain_builds.parse_file(path)
        assert caught.value.message.startswith(f"{path}:{line}: ")


def test_locks_name_the_line_and_the_number() -> None:
    entry = (
        '[[file]]\nbuild = "a"\nposition = 0\ntype = "pypi"\nname = "n"\nversion = "1"\n'
        f'filename = "n.whl"\nsha256 = "{"0" * 64}"\n'
    )
    with pytest.raises(
        ConfigurationError, match=r"lock\.toml:14: \[\[file\]\] number 2: 'version' is not a string"
    ):
        toolchain_lock.parse(
            entry + entry.replace('version = "1"', "version = 1"), Path("lock.toml")
        )


def test_on_request_is_true_or_false(tmp_path: Path, root: Path) -> None:
    """Other values once meant false, so a source was fetched by default against its table."""
    (tmp_path / "third_party").mkdir()
    text = (root / third_party.LOCK).read_text(encoding="utf-8")
    line = text.splitlines().index("on_request = true") + 1
    (tmp_path / third_party.LOCK).write_text(
        text.replace("on_request = true\n", 'on_request = "true"\n', 1), encoding="utf-8"
    )
    with pytest.raises(
        ConfigurationError,
        match=rf"lock\.toml:{line}: \[\[source\]\] number \d: on_request = 'true' is not valid",
    ):
        third_party.read(tmp_path)


LINES = st.sampled_from(
    [
        *TEXT.splitlines(),
        "[item]",
        "item = [",
        "  { name = 3 },",
        "]",
        "name = 3",
        "[[item.part.deep]]",
        "[a.b]",
        '"x" = 1',
    ]
)


@given(
    st.lists(LINES, max_size=20).map("\n".join),
    st.sampled_from(["name", "names", "part", "flag", "size"]),
)
def test_any_document_gives_values_or_one_error(text: str, key: str) -> None:
    with contextlib.suppress(ConfigurationError):
        for record in Document(FILE, text).root.records("item", "[[item]]"):
            for read in (record.text, record.texts, record.flag, record.number, record.texts_by):
                try:
                    read(key)
                except ConfigurationError as error:
                    number = re.match(r"table\.toml:(\d+): ", error.message)
                    assert number is not None
                    assert 1 <= int(number[1]) <= max(1, len(text.splitlines()))
            for part in record.records("part", "a part"):
                part.text("name")
