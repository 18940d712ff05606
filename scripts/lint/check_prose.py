# SPDX-License-Identifier: Apache-2.0
"""Finds banned phrases in prose: ``check_prose.py [FILE...]``.

Without files, it checks the paths in ``prose.toml``. The phrases make readers go back to the
beginning of a sentence. In Markdown, fenced blocks and code spans are not checked. In other files,
only comments are checked, and in Python also docstrings.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("prose.toml")

_COMMENT = {".cc": "//", ".cu": "//", ".h": "//", ".cuh": "//"}
_CODE_SPAN = re.compile(r"``.+?``|`[^`\n]*`")
_LINK_TARGET = re.compile(r"\]\([^)]*\)|<https?:[^>]*>")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\A\s*(?:[-*] |\d+\. )?")
_TITLE = re.compile(r"\s*(#|\|)")
#: Lines of Markdown that begin a new text: headings, tables, list items, directives and comments.
_BLOCK = re.compile(r"^\s*(#{1,6} |\||<!--|[-*] |\d+\. |:\w+:|$)")


@dataclass(frozen=True)
class Phrase:
    """A banned phrase.

    Attributes:
        pattern: the phrase.
        instead: advice on a better phrase.
        first: whether the phrase is banned only at the beginning of a sentence.
    """

    pattern: re.Pattern[str]
    instead: str
    first: bool


@dataclass(frozen=True)
class Text:
    """A paragraph, comment or part of a docstring.

    Attributes:
        line: the number of its first line.
        text: its words.
        title: whether it is a heading, a row of a table or a docstring's summary. These may be noun
            phrases such as "What you get".
    """

    line: int
    text: str
    title: bool = False


def read_table(path: Path = TABLE) -> tuple[list[Phrase], list[str], list[str]]:
    """The phrases, the paths to check and the paths to skip."""
    with path.open("rb") as file:
        table = tomllib.load(file)
    phrases = []
    for entry in table["phrase"]:
        pattern = entry["pattern"]
        words = rf"(?<!\w)(?:{pattern.removeprefix('^')})(?!\w)"
        phrases.append(
            Phrase(re.compile(words, re.IGNORECASE), entry["instead"], pattern.startswith("^"))
        )
    return phrases, table["paths"], table["skip"]


def _paragraphs(lines: list[tuple[int, str]]) -> Iterator[Text]:
    """Consecutive lines, joined; headings, rows of tables and list items are separate texts."""
    begin, words, before = 0, list[str](), -1
    for number, line in lines:
        if _BLOCK.match(line) or number != before + 1:
            if words:
                yield Text(begin, "\n".join(words))
            begin, words = number, []
        if line.strip():
            begin = begin if words else number
            words.append(line)
        before = number
    if words:
        yield Text(begin, "\n".join(words))


def of_markdown(source: str) -> Iterator[Text]:
    """The paragraphs of a Markdown file."""
    lines, fence = [], ""
    for number, line in enumerate(source.splitlines(), 1):
        mark = re.match(r"\s*(```+|~~~+)", line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        elif not fence:
            lines.append((number, line))
    for paragraph in _paragraphs(lines):
        text = _LINK_TARGET.sub("]", _CODE_SPAN.sub("`code`", paragraph.text))
        yield Text(paragraph.line, text, title=bool(_TITLE.match(text)))


def of_python(source: str) -> Iterator[Text]:
    """Comments and docstrings."""
    comments = [
        (token.start[0], token.string.lstrip("#:! "))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    summaries, documented = (
        set[int](),
        (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef),
    )
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr):
            value = node.body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                comments += list(enumerate(value.value.splitlines(), value.lineno))
                summaries.add(value.lineno)
    for paragraph in _paragraphs(sorted(comments)):
        yield Text(
            paragraph.line,
            _CODE_SPAN.sub("`code`", paragraph.text),
            title=paragraph.line in summaries,
        )


def of_comments(source: str, mark: str) -> Iterator[Text]:
    """Comments that begin with ``mark``, also those after code."""
    found = (re.match(rf"(?:.*\s|){mark}+!?(?:\s(.*)|)$", line) for line in source.splitlines())
    yield from _paragraphs(
        [(number, match[1] or "") for number, match in enumerate(found, 1) if match]
    )


def texts(path: Path) -> Iterator[Text]:
    """The prose of a file."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return of_markdown(source)
    if path.suffix == ".py":
        return of_python(source)
    return of_comments(source, _COMMENT.get(path.suffix, "#"))


def findings(path: Path, phrases: list[Phrase]) -> Iterator[str]:
    """One line for each banned phrase."""
    for text in texts(path):
        for phrase in phrases:
            if not phrase.first:
                found = list(phrase.pattern.finditer(text.text))
            elif text.title:
                found = []
            else:
                starts = sorted({match.end() for match in _SENTENCE.finditer(text.text)})
                found = [
                    match for start in starts if (match := phrase.pattern.match(text.text, start))
                ]
            for match in found:
                line = text.line + text.text.count("\n", 0, match.start())
                yield f"{path}:{line}: {match[0]!r}: write instead: {phrase.instead}"


def files(names: list[str], skip: list[str]) -> Iterator[Path]:
    """The files at the given paths, which may be folders and may be relative to the root."""
    for name in names:
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            inside = file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else ""
            if (
                file.is_file()
                and inside not in skip
                and file.suffix not in {".pyc", ".svg", ".html"}
            ):
                yield file


def main(arguments: list[str]) -> int:
    """Check the files; return 1 if there are findings."""
    phrases, names, skip = read_table()
    found = [line for path in files(arguments or names, skip) for line in findings(path, phrases)]
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
