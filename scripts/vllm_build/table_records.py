# SPDX-License-Identifier: Apache-2.0
"""Typed access to the records of a TOML table, with the line of every mistake: the TOML parser keeps no line numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from vllm_build.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

_HEADER = re.compile(r"\s*\[\[\s*(\w+)\s*\]\]")


class Lines:
    """Line numbers of records, keys and strings in the text of a table."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._starts: dict[tuple[str, int], int] = {}
        counts: dict[str, int] = {}
        headers: list[int] = []
        for number, line in enumerate(self._lines):
            match = _HEADER.match(line)
            if match:
                index = counts.get(match.group(1), 0)
                counts[match.group(1)] = index + 1
                self._starts[match.group(1), index] = number
            if match or (re.match(r"\s*\[", line) and "=" not in line and '"' not in line):
                headers.append(number)
        self._ends = dict(zip(headers, [*headers, len(self._lines)][1:], strict=True))

    def top(self, key: str) -> int:
        """1-based line of a top-level key or table, 1 when it is not found."""
        pattern = re.compile(rf'\s*(\[\[?\s*)?"?{re.escape(key)}"?\s*([=\].])')
        return next((n + 1 for n, line in enumerate(self._lines) if pattern.match(line)), 1)

    def find(self, kind: str, index: int, what: str | None = None) -> int:
        """1-based line of record ``index`` of ``kind``; of ``what`` (a key, else a quoted string) inside it when it is found there."""
        start = self._starts.get((kind, index), 0)
        body = range(start, self._ends.get(start, len(self._lines)))
        if what is not None:
            key = re.compile(rf'\s*"?{re.escape(what)}"?\s*=')
            for number in body:
                if key.match(self._lines[number]):
                    return number + 1
            for number in body:
                if f'"{what}"' in self._lines[number] or f"'{what}'" in self._lines[number]:
                    return number + 1
        return start + 1


class Record:
    """One record under inspection: typed access to its keys, errors with their line."""

    def __init__(self, path: Path, lines: Lines, kind: str, index: int, data: object) -> None:
        self._path, self._lines, self.kind, self._index = path, lines, kind, index
        if not isinstance(data, dict):
            raise ConfigurationError(f"{path}:{lines.top(kind)}: {kind} is not a record", expected=f"[[{kind}]] followed by keys")
        self._data: dict[str, object] = data

    def at(self, what: str | None = None) -> str:
        """``file:line`` of the record, or of the key or string ``what`` in it."""
        return f"{self._path}:{self._lines.find(self.kind, self._index, what)}"

    def fail(self, what: str | None, message: str, expected: str) -> NoReturn:
        """Report a mistake on the line of the key or string ``what``; None: of the record."""
        raise ConfigurationError(f"{self.at(what)}: {message}", expected=expected, remedy=f"correct that line of {self._path.name}")

    def allow(self, *known: str) -> None:
        """Refuse keys other than ``known``."""
        for key in self._data:
            if key not in known:
                self.fail(key, f"unknown key {key!r} in [[{self.kind}]]", "one of " + ", ".join(known))

    def has(self, key: str) -> bool:
        """Whether the record has the key."""
        return key in self._data

    def text(self, key: str, pattern: re.Pattern[str], default: str | None = None) -> str:
        """A string that matches ``pattern`` as a whole; required unless there is a default."""
        value = self._data.get(key, default)
        if value is None:
            self.fail(None, f"[[{self.kind}]] has no {key!r}", f"{key} = a string that matches {pattern.pattern}")
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self.fail(key, f"{key} = {value!r} is not valid", f"a string that matches {pattern.pattern}")
        return value

    def texts(self, key: str, *, choices: tuple[str, ...] | None = None, required: bool = True) -> tuple[str, ...]:
        """A list of strings, each once, from ``choices``; at least one where it is required."""
        value = self._data.get(key, None if required else [])
        rule = f"a list of {'one or more ' if required else ''}strings, each once{', from ' + ', '.join(choices) if choices else ''}"
        if value is None:
            self.fail(None, f"[[{self.kind}]] has no {key!r}", f"{key} = {rule}")
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value) or (required and not value):
            self.fail(key, f"{key} = {value!r} is not valid", rule)
        for number, item in enumerate(value):
            if choices and item not in choices:
                self.fail(key, f"{item!r} in {key!r} is not known", rule)
            if item in value[:number]:
                self.fail(item, f"{item!r} stands twice in {key!r}", rule)
        return tuple(value)

    def matching(self, key: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
        """A list of strings that match ``pattern``, each once; empty when the key is absent."""
        found = self.texts(key, required=False)
        for item in found:
            if not pattern.fullmatch(item):
                self.fail(item, f"{item!r} in {key!r} is not valid", f"strings that match {pattern.pattern}")
        return found

    def lists_by(self, key: str, choices: tuple[str, ...], pattern: re.Pattern[str]) -> dict[str, tuple[str, ...]]:
        """An inline table from one of ``choices`` to a list of strings that match ``pattern``; empty when the key is absent."""
        value = self._data.get(key, {})
        rule = f"{key} = {{ <one of {', '.join(choices) or 'none here'}> = [strings that match {pattern.pattern}] }}"
        if not isinstance(value, dict):
            self.fail(key, f"{key} = {value!r} is not valid", rule)
        for choice, items in value.items():
            if choice not in choices:
                self.fail(key, f"{choice!r} in {key!r} is not known", rule)
            if not isinstance(items, list) or not all(isinstance(item, str) and pattern.fullmatch(item) for item in items):
                self.fail(key, f"{choice} = {items!r} in {key!r} is not valid", rule)
        return {choice: tuple(items) for choice, items in value.items()}

    def flag(self, key: str, *, default: bool = False) -> bool:
        """A boolean; ``default`` when the key is absent."""
        value = self._data.get(key, default)
        if not isinstance(value, bool):
            self.fail(key, f"{key} = {value!r} is not valid", "true or false")
        return value

    def by_device(self, key: str, devices: tuple[str, ...], pattern: re.Pattern[str]) -> dict[str, str]:
        """An inline table from a device to a string that matches ``pattern``; empty when the key is absent."""
        value = self._data.get(key, {})
        rule = f"{key} = {{ <device> = a string that matches {pattern.pattern} }}, device of {', '.join(devices) or 'none here'}"
        if not isinstance(value, dict) or not all(isinstance(item, str) and pattern.fullmatch(item) for item in value.values()):
            self.fail(key, f"{key} = {value!r} is not valid", rule)
        for device in value:
            if device not in devices:
                self.fail(key, f"{device!r} in {key!r} is no GPU device of this record", rule)
        return dict(value)
