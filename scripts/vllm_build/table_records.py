# SPDX-License-Identifier: Apache-2.0
"""Typed access to the records of a TOML table, with the line of every mistake: the TOML parser keeps no line numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from vllm_build.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.table_shorthand import Written

_HEADER = re.compile(r"\s*\[\[\s*(\w+)\s*\]\]")
#: Records may also be written as ``kernel = [`` and one inline table a line, to the ``]`` at the beginning of a line.
_LIST = re.compile(r"(\w+)\s*=\s*\[\s*(#.*)?$")
_INLINE = re.compile(r"\s*\{")


class Lines:
    """Line numbers of records, keys and strings in the text of a table."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._starts: dict[tuple[str, int], int] = {}
        self._inline: set[int] = set()
        counts: dict[str, int] = {}
        headers: list[int] = []
        ends: list[int] = []
        inside: str | None = None
        for number, line in enumerate(self._lines):
            if inside is None and not headers and (opened := _LIST.match(line)):
                inside = opened.group(1)
            if inside is not None:
                if line.startswith("]"):
                    inside = None
                    ends.append(number)
                elif _INLINE.match(line):
                    self._starts[inside, counts.get(inside, 0)] = number
                    self._inline.add(number)
                    counts[inside] = counts.get(inside, 0) + 1
                    ends.append(number)
                continue
            match = _HEADER.match(line)
            if match:
                index = counts.get(match.group(1), 0)
                counts[match.group(1)] = index + 1
                self._starts[match.group(1), index] = number
            if match or (re.match(r"\s*\[", line) and "=" not in line and '"' not in line):
                headers.append(number)
        starts = sorted([*ends, *headers])
        self._ends = dict(zip(starts, [*starts, len(self._lines)][1:], strict=True))

    def top(self, key: str) -> int:
        """1-based line of a top-level key or table, 1 when it is not found."""
        pattern = re.compile(rf'\s*(\[\[?\s*)?"?{re.escape(key)}"?\s*([=\].])')
        return next((n + 1 for n, line in enumerate(self._lines) if pattern.match(line)), 1)

    def named(self, kind: str, name: str, key: str) -> int:
        """1-based line of ``key`` in the table ``kind.name``, which may be inline, dotted or have a header; of the table otherwise."""
        table = re.compile(rf'\s*\[?\s*{re.escape(kind)}\s*\.\s*"?{re.escape(name)}"?\s*[.=\]]')
        found = [n for n, line in enumerate(self._lines) if table.match(line)]
        value = re.compile(rf'[{{,.\s]"?{re.escape(key)}"?\s*=')
        if found and self._lines[found[0]].lstrip().startswith("["):
            found += range(found[0] + 1, self._ends.get(found[0], len(self._lines)))
        return next((n + 1 for n in found if value.search(f" {self._lines[n]}")), found[0] + 1 if found else self.top(kind))

    def find(self, kind: str, index: int, what: str | None = None) -> int:
        """1-based line of record ``index`` of ``kind``; of ``what`` (a key, else a quoted string) inside it when it is found there."""
        found = None if what is None else self.inside(kind, index, what)
        return self._starts.get((kind, index), 0) + 1 if found is None else found

    def inside(self, kind: str, index: int, what: str) -> int | None:
        """1-based line of ``what`` in the record; None when it is not there."""
        start = self._starts.get((kind, index), 0)
        body = range(start, self._ends.get(start, len(self._lines)))
        key = re.compile(rf'{"(.*[{{,])?" if start in self._inline else ""}\s*"?{re.escape(what)}"?\s*=')
        for number in body:
            if key.match(self._lines[number]):
                return number + 1
        for number in body:
            if f'"{what}"' in self._lines[number] or f"'{what}'" in self._lines[number]:
                return number + 1
        return None


class Record:
    """One record under inspection: typed access to its keys, errors with their line."""

    def __init__(
        self, path: Path, lines: Lines, kind: str, index: int, data: object, *, written: Written | None = None
    ) -> None:  # fmt: skip
        self._path, self._lines, self.kind, self._index = path, lines, kind, index
        self._group = written.groups.get(index) if written is not None and kind == "kernel" else None
        self._patterns = written.patterns if written is not None else {}
        if not isinstance(data, dict):
            raise ConfigurationError(f"{path}:{lines.top(kind)}: {kind} is not a record", expected=f"[[{kind}]] followed by keys")
        self._data: dict[str, object] = data

    def at(self, what: str | None = None) -> str:
        """``file:line`` of the record, or of the key or string ``what`` in it or in its group."""
        return f"{self._path}:{self._line(what)}"

    def _line(self, what: str | None) -> int:
        if what is not None:
            found = self._lines.inside(self.kind, self._index, self._patterns.get(what, what))
            if found is not None:
                return found
            if self._group is not None and what in self._data:
                return self._lines.named("group", self._group, what)
        return self._lines.find(self.kind, self._index)

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
