# SPDX-License-Identifier: Apache-2.0
"""Reads checked records: typed access to the tables of a TOML file.

The reader of a file says which keys its records have and which values these accept. It gets typed
values or a ConfigurationError that names file, line, mistake, expected value and remedy.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from vllm_build.util.errors import ConfigurationError
from vllm_build.util.files import read_text
from vllm_build.util.record_lines import Lines
from vllm_build.util.toml import TOMLDecodeError, loads

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vllm_build.util.record_lines import Place

_SHA256 = re.compile(r"[0-9a-f]{64}")
_INVALID = "{key} = {value!r} is not valid"
#: The message for each kind of mistake. A document may replace some of them.
WORDS: Mapping[str, str] = {
    "record": "{kind} is not a record",
    "records": "the table has no [[{kind}]] records",
    "unknown": "unknown key {key!r} in {what}",
    "missing": "{what} has no {key!r}",
    "item": "{value!r} in {key!r} is not valid",
    "choice": "{value!r} in {key!r} is not known",
    "twice": "{value!r} is listed twice in {key!r}",
    **dict.fromkeys(("text", "pattern", "list", "flag", "number", "table"), _INVALID),
}


class Document:
    """A parsed TOML file.

    Attributes:
        path: the file, for messages.
        data: the parser's result.
        remedy: the remedy for a mistake in the file.
    """

    def __init__(
        self,
        path: Path,
        text: str,
        *,
        remedy: str | None = None,
        words: Mapping[str, str] | None = None,
    ) -> None:
        """Parse ``text``.

        Args:
            path: the file, for messages.
            text: its content.
            remedy: the remedy for a mistake; None: correct the line.
            words: replacements for entries of ``WORDS``.

        Raises:
            ConfigurationError: the text is not TOML.
        """
        self.path, self._text = path, text
        self.remedy = remedy or f"correct that line of {path.name}"
        self.words = {**WORDS, **(words or {})}
        try:
            self.data: dict[str, Any] = loads(text)
        except TOMLDecodeError as error:
            message, remedy = f"{path}: not valid TOML: {error}", remedy or "correct that line"
            raise ConfigurationError(message, expected="valid TOML", remedy=remedy) from error

    @cached_property
    def lines(self) -> Lines:
        """The line numbers, computed for the first message."""
        return Lines(self._text)

    def error(self, line: int, message: str, expected: str) -> ConfigurationError:
        """The error for a mistake on ``line``; the caller raises it."""
        return ConfigurationError(
            f"{self.path}:{line}: {message}", expected=expected, remedy=self.remedy
        )

    @property
    def root(self) -> Record:
        """The top level."""
        return Record(self, (), self.data, what="the file")


def read_document(
    path: Path, expected: str, *, remedy: str | None = None, words: Mapping[str, str] | None = None
) -> Document | None:
    """Read and parse a file.

    Args:
        path: the file.
        expected: a description of the file, for messages.
        remedy: as for :class:`Document`.
        words: as for :class:`Document`.

    Returns:
        The document; None if there is no such file.

    Raises:
        ConfigurationError: the file cannot be read, is not UTF-8 or is not TOML.
    """
    try:
        text = read_text(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}", expected=expected, remedy="check the tree out again"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path} is not UTF-8 at byte {error.start}", expected="UTF-8, as TOML is"
        ) from error
    return Document(path, text, remedy=remedy, words=words)


def require_document(
    path: Path, expected: str, *, remedy: str | None = None, words: Mapping[str, str] | None = None
) -> Document:
    """Read and parse a file that every tree has.

    Raises:
        ConfigurationError: as for :func:`read_document`, or there is no such file.
    """
    document = read_document(path, expected, remedy=remedy, words=words)
    if document is None:
        raise ConfigurationError(
            f"{path}: No such file or directory",
            expected=expected,
            remedy="check the tree out again",
        )
    return document


class Record:
    """Typed access to the keys of one table.

    Every method that returns a value raises ConfigurationError if the value is missing or
    malformed.

    Attributes:
        what: the table's name in messages.
        document: the document of the table.
        place: the table's place in the document.
        data: its keys and values.
    """

    def __init__(
        self, document: Document, place: Place, data: object, *, what: str, label: str = ""
    ) -> None:
        """Wrap the table at ``place``; messages have ``label`` after the line.

        Raises:
            ConfigurationError: ``data`` is not a table.
        """
        self.document, self.place, self.what, self._label = document, place, what, label
        if not isinstance(data, dict):
            kind = next((name for name in reversed(place) if isinstance(name, str)), what)
            self.data: dict[str, Any] = {}
            self.fail(
                None,
                document.words["record"].format(kind=kind, what=what),
                f"{what} followed by keys",
            )
        self.data = data

    def line(self, what: str | None) -> int:
        """1-based line of the key or string ``what`` in the record, or of the record."""
        lines = self.document.lines
        return (
            lines.find(self.place, what) if self.place else 1 if what is None else lines.top(what)
        )

    def at(self, what: str | None = None) -> str:
        """``file:line`` of the record, or of the key or string ``what`` in it."""
        return f"{self.document.path}:{self.line(what)}"

    def fail(self, what: str | None, message: str, expected: str) -> NoReturn:
        """Report a mistake on the line of the key or string ``what``, or of the record if None.

        Raises:
            ConfigurationError: always.
        """
        raise self.document.error(self.line(what), f"{self._label}{message}", expected)

    def _wrong(
        self, mistake: str, key: str, value: object, expected: str, *, at: str | None = None
    ) -> NoReturn:
        found = at if at is not None else key if key in self.data else None
        self.fail(
            found,
            self.document.words[mistake].format(what=self.what, key=key, value=value),
            expected,
        )

    def allow(self, *known: str) -> None:
        """Refuse keys other than ``known``."""
        for key in self.data:
            if key not in known:
                self._wrong("unknown", key, None, "one of " + ", ".join(known))

    def has(self, key: str) -> bool:
        """Whether the record has the key."""
        return key in self.data

    def _take(self, key: str, default: object, expected: str) -> Any:
        if key not in self.data and default is None:
            self._wrong("missing", key, None, f"{key} = {expected}")
        return self.data.get(key, default)

    def text(
        self,
        key: str,
        pattern: re.Pattern[str] | None = None,
        *,
        choices: tuple[str, ...] = (),
        default: str | None = None,
    ) -> str:
        """A non-empty text from ``choices`` that matches ``pattern``; optional with a default."""
        rule = (
            f"a string that matches {pattern.pattern}"
            if pattern
            else "one of " + ", ".join(choices)
            if choices
            else "a text"
        )
        value = self._take(key, default, rule)
        if not isinstance(value, str) or (not value and key in self.data):
            self._wrong("text", key, value, rule)
        if pattern is not None and key in self.data and not pattern.fullmatch(value):
            self._wrong("pattern", key, value, rule)
        if choices and value not in choices:
            self.fail(key, f"unknown {key} {value!r}", rule)
        return value

    def texts(
        self,
        key: str,
        pattern: re.Pattern[str] | None = None,
        *,
        choices: tuple[str, ...] = (),
        required: bool = True,
    ) -> tuple[str, ...]:
        """A list of distinct texts from ``choices`` that match ``pattern``; empty if optional."""
        rule = (
            f"a list of {'one or more ' if required else ''}strings, each "
            f"once{', from ' + ', '.join(choices) if choices else ''}"
        )
        value = self._take(key, None if required else [], rule)
        if (
            not isinstance(value, list)
            or not all(isinstance(item, str) and item for item in value)
            or (required and not value)
        ):
            self._wrong("list", key, value, rule)
        for number, item in enumerate(value):
            if choices and item not in choices:
                self._wrong("choice", key, item, rule)
            if item in value[:number]:
                self._wrong("twice", key, item, rule, at=item)
            if pattern is not None and not pattern.fullmatch(item):
                self._wrong("item", key, item, f"strings that match {pattern.pattern}", at=item)
        return tuple(value)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """A boolean; ``default`` if the key is absent."""
        value = self._take(key, default, "true or false")
        if not isinstance(value, bool):
            self._wrong("flag", key, value, "true or false")
        return value

    def number(self, key: str, *, least: int = 0, default: int | None = None) -> int:
        """A whole number that is at least ``least``; optional with a default."""
        rule = f"a number, at least {least}"
        value = self._take(key, default, rule)
        if type(value) is not int or value < least:
            self._wrong("number", key, value, rule)
        return value

    def sha256(self, key: str) -> str:
        """64 lower-case hexadecimal digits."""
        value = self.text(key)
        if not _SHA256.fullmatch(value):
            self.fail(key, f"{key} is malformed", "64 lower-case hexadecimal digits")
        return value

    def texts_by(self, key: str, pattern: re.Pattern[str] | None = None) -> dict[str, str]:
        """A table of texts that match ``pattern``; empty if the key is absent."""
        value = self.data.get(key, {})
        rule = (
            f"{key} = {{ <key> = a string{f' that matches {pattern.pattern}' if pattern else ''} }}"
        )
        items = value.values() if isinstance(value, dict) else [None]
        if not all(
            isinstance(item, str) and (pattern is None or pattern.fullmatch(item)) for item in items
        ):
            self._wrong("table", key, value, rule)
        return dict(value)

    def lists_by(
        self, key: str, choices: tuple[str, ...], pattern: re.Pattern[str]
    ) -> dict[str, tuple[str, ...]]:
        """A table of lists of texts that match ``pattern``, by key; empty if the key is absent.

        Each key of the table is one of ``choices``.
        """
        value = self.data.get(key, {})
        rule = (
            f"{key} = {{ <one of {', '.join(choices) or 'none here'}> = [strings that match "
            f"{pattern.pattern}] }}"
        )
        if not isinstance(value, dict):
            self._wrong("table", key, value, rule)
        for choice, items in value.items():
            if choice not in choices:
                self._wrong("choice", key, choice, rule)
            if not isinstance(items, list) or not all(
                isinstance(item, str) and pattern.fullmatch(item) for item in items
            ):
                self.fail(key, f"{choice} = {items!r} in {key!r} is not valid", rule)
        return {choice: tuple(items) for choice, items in value.items()}

    def table(self, key: str, *, label: str = "") -> Record:
        """The table ``key`` of the record; an empty one if the key is absent."""
        return Record(
            self.document, (*self.place, key), self.data.get(key, {}), what=f"[{key}]", label=label
        )

    def records(self, kind: str, what: str) -> list[Record]:
        """The records ``[[kind]]`` in this one, at least one; messages call each ``what``."""
        value = self.data.get(kind)
        if not isinstance(value, list) or not value:
            self.fail(
                kind,
                self.document.words["records"].format(what=self.what, kind=kind),
                f"[[{kind}]] once or more",
            )
        return [
            Record(self.document, (*self.place, kind, number), item, what=what)
            for number, item in enumerate(value)
        ]
