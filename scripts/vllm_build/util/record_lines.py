# SPDX-License-Identifier: Apache-2.0
"""Finds line numbers in the text of a TOML document; the parser does not keep them."""

from __future__ import annotations

import re
from typing import TypeAlias

#: A place in a document. ``("kernel", 3)`` is the fourth ``[[kernel]]``, and ``("build", 0,
#: "source", 1)`` is the second source of the first ``[[build]]``.
Place: TypeAlias = tuple[str | int, ...]

_NAMES = r"[\w-]+(?:\s*\.\s*[\w-]+)*"
_ARRAY_HEADER = re.compile(rf"\s*\[\[\s*({_NAMES})\s*\]\]")
_TABLE_HEADER = re.compile(rf"\s*\[\s*({_NAMES})\s*\]\s*(#.*)?$")
#: Records may also be inline tables, one per line, between ``kernel = [`` and a ``]`` at the
#: beginning of a line.
_LIST = re.compile(r"(\w+)\s*=\s*\[\s*(#.*)?$")
_INLINE = re.compile(r"\s*\{")


class Lines:
    """Line numbers of records, keys and strings."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._starts: dict[Place, int] = {}
        self._counts: dict[Place, int] = {}
        self._inline: set[int] = set()
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
                    self._add((inside,), number)
                    self._inline.add(number)
                    ends.append(number)
                continue
            match = _ARRAY_HEADER.match(line)
            if match:
                self._add(self._path(match[1]), number)
            elif table := _TABLE_HEADER.match(line):
                self._starts.setdefault(self._path(table[1]), number)
            if match or (re.match(r"\s*\[", line) and "=" not in line and '"' not in line):
                headers.append(number)
        starts = sorted([*ends, *headers])
        self._ends = dict(zip(starts, [*starts, len(self._lines)][1:], strict=True))

    def _path(self, header: str) -> Place:
        """The place of a header; the name of an array means its last table."""
        path: Place = ()
        for name in re.split(r"\s*\.\s*", header):
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
            path = (*path, name)
        return path

    def _add(self, array: Place, number: int) -> None:
        index = self._counts.get(array, 0)
        self._counts[array] = index + 1
        place = (*array, index)
        self._starts[place] = number

    def top(self, key: str) -> int:
        """1-based line of a top-level key or table; 1 if it is not found."""
        pattern = re.compile(rf'\s*(\[\[?\s*)?"?{re.escape(key)}"?\s*([=\].])')
        return next((n + 1 for n, line in enumerate(self._lines) if pattern.match(line)), 1)

    def named(self, kind: str, name: str, key: str | None = None) -> int:
        """1-based line of ``key`` in the table ``kind.name``, or of the table.

        The table may be inline, dotted or have a header.
        """
        table = re.compile(rf'\s*\[?\s*{re.escape(kind)}\s*\.\s*"?{re.escape(name)}"?\s*[.=\]]')
        found = [n for n, line in enumerate(self._lines) if table.match(line)]
        if key is None:
            return found[0] + 1 if found else self.top(kind)
        value = re.compile(rf'[{{,.\s]"?{re.escape(key)}"?\s*=')
        if found and self._lines[found[0]].lstrip().startswith("["):
            found += range(found[0] + 1, self._ends.get(found[0], len(self._lines)))
        return next(
            (n + 1 for n in found if value.search(f" {self._lines[n]}")),
            found[0] + 1 if found else self.top(kind),
        )

    def entry(self, table: str, name: str) -> int:
        """1-based line of ``name`` in a top-level table, or of the table.

        ``name`` is a key below the table's header, or a table ``table.name``.
        """
        found = self.inside((table,), name, keys_only=True)
        return self.named(table, name) if found is None else found

    def find(self, place: Place, what: str | None = None) -> int:
        """1-based line of the key or quoted string ``what`` in a record, or of the record."""
        found = None if what is None else self.inside(place, what)
        if found is not None:
            return found
        while len(place) > 1 and place not in self._starts:
            place = place[:-1]
        return self._starts[place] + 1 if place in self._starts else self.top(str(place[0]))

    def inside(self, place: Place, what: str, *, keys_only: bool = False) -> int | None:
        """1-based line of the key or quoted string ``what`` in a record; None if it has neither.

        A key takes precedence. With ``keys_only``, strings are not searched.
        """
        start = self._starts.get(place)
        if start is None:
            return None
        body = range(start, self._ends.get(start, len(self._lines)))
        key = re.compile(
            rf'{"(.*[{{,])?" if start in self._inline else ""}\s*"?{re.escape(what)}"?\s*='
        )
        for number in body:
            if key.match(self._lines[number]):
                return number + 1
        for number in () if keys_only else body:
            if f'"{what}"' in self._lines[number] or f"'{what}'" in self._lines[number]:
                return number + 1
        return None
