# SPDX-License-Identifier: Apache-2.0
"""Expands the short forms of ``csrc/kernels.toml``.

The short forms are groups of kernels, named lists of architectures, and braces in lists of sources.
Checks and digests see only the expanded records, so both spellings of a table are equivalent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from vllm_build.util.record_reader import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllm_build.util.record_reader import Document

#: Keys whose strings may contain braces.
_LISTS = ("sources", "third_party_sources")
#: Keys that a group cannot have.
_OWN = ("name", "group", "sources", "third_party_sources")
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass
class Written:
    """The expanded records of a table, and where their parts are in the file.

    Attributes:
        data: the top-level tables; the records contain no groups, list names or braces.
        groups: index of a kernel's record -> the group that it takes values from.
        patterns: a source -> the string with braces that it was expanded from.
    """

    data: dict[str, Any]
    groups: dict[int, str] = field(default_factory=dict)
    patterns: dict[str, str] = field(default_factory=dict)


class WrittenRecord(Record):
    """An expanded record, which finds the lines of values from its group and from braces."""

    def __init__(self, document: Document, kind: str, index: int, written: Written) -> None:
        """Take the record ``index`` of ``kind``.

        Raises:
            ConfigurationError: it is not a table.
        """
        self.kind = kind
        self._group = written.groups.get(index) if kind == "kernel" else None
        self._patterns = written.patterns
        super().__init__(document, (kind, index), written.data[kind][index], what=f"[[{kind}]]")

    def line(self, what: str | None) -> int:
        """1-based line of the key or string ``what`` in the record or group, else of the record."""
        lines = self.document.lines
        if what is not None:
            found = lines.inside(self.place, self._patterns.get(what, what))
            if found is not None:
                return found
            if self._group is not None and what in self.data:
                return lines.named("group", self._group, what)
        return lines.find(self.place)


def expand_braces(text: str) -> list[str]:
    """Expand the braces in ``text``, as a shell does.

    ``a{,_b}_{c,d}`` gives ``a_c``, ``a_d``, ``a_b_c`` and ``a_b_d``, in this order.

    Raises:
        ValueError: a brace has no partner, is nested, or offers no choice.
    """
    found = _BRACES.search(text)
    before, after = (text, "") if found is None else (text[: found.start()], text[found.end() :])
    if "{" in before or "}" in before:
        raise ValueError(text)
    if found is None:
        return [text]
    choices = found[1].split(",")
    if len(choices) == 1:
        raise ValueError(text)
    return [before + choice + rest for choice in choices for rest in expand_braces(after)]


class _Expander:
    def __init__(self, document: Document) -> None:
        self._document, data = document, document.data
        self.written = Written(
            {key: value for key, value in data.items() if key not in ("archs", "group")}
        )
        self._archs, self._group = self._named(data, "archs"), self._named(data, "group")

    def _fail(self, line: int, message: str, expected: str) -> NoReturn:
        raise self._document.error(line, message, expected)

    def _named(self, data: Mapping[str, Any], kind: str) -> dict[str, dict[str, Any]]:
        """The tables ``archs.NAME`` or ``group.NAME``."""
        value = data.get(kind, {})
        if not isinstance(value, dict) or not all(
            isinstance(item, dict) for item in value.values()
        ):
            self._fail(
                self._document.lines.top(kind),
                f"{kind} = {value!r} is not valid",
                f"{kind}.NAME = {{ … }}",
            )
        for name, values in value.items():
            for key in _OWN if kind == "group" else ():
                if key in values:
                    line = self._document.lines.named(kind, name, key)
                    self._fail(
                        line, f"{key!r} in the group {name!r}", "keys that kernels have in common"
                    )
        return dict(value)

    def _chosen(
        self, kind: str, index: int, key: str, name: str, known: Mapping[str, dict[str, Any]]
    ) -> dict[str, Any]:
        if name not in known:
            line = self._document.lines.find((kind, index), key)
            self._fail(
                line,
                f"no {key} is named {name!r}",
                "one of " + (", ".join(known) or f"the tables {key}.NAME, but there are none"),
            )
        return known[name]

    def _sources(self, kind: str, index: int, record: dict[str, Any]) -> None:
        for key in _LISTS:
            value = record.get(key)
            if not isinstance(value, list):
                continue
            found: list[Any] = []
            for item in value:
                try:
                    strings = expand_braces(item) if isinstance(item, str) else [item]
                except ValueError:
                    line = self._document.lines.find((kind, index), item)
                    self._fail(
                        line,
                        f"{item!r} in {key!r} has braces without a choice",
                        "braces such as {bf16,fp16}, not nested",
                    )
                self.written.patterns |= {string: item for string in strings if string != item}
                found += strings
            record[key] = found

    def _with_group(self, index: int, record: dict[str, Any]) -> dict[str, Any]:
        """The record with the values of its group, except those that have no effect in it."""
        name = record.pop("group", None)
        if name is None:
            return record
        if not isinstance(name, str):
            self._fail(
                self._document.lines.find(("kernel", index), "group"),
                f"group = {name!r} is not valid",
                "the name of a group",
            )
        self.written.groups[index] = name
        taken = {
            key: value
            for key, value in self._chosen("kernel", index, "group", name, self._group).items()
            if key not in record
        }
        lists = [value for value in map(record.get, _LISTS) if isinstance(value, list)]
        listed = [source for value in lists for source in value]
        if not any(isinstance(source, str) and source.endswith(".cu") for source in listed):
            taken.pop("archs", None)
        sets, by_set = record.get("sets", taken.get("sets")), taken.get("set_definitions")
        if isinstance(by_set, dict) and isinstance(sets, list):
            taken["set_definitions"] = {key: value for key, value in by_set.items() if key in sets}
            if not taken["set_definitions"]:
                del taken["set_definitions"]
        return {**taken, **record}

    def _archs_of(self, index: int, record: dict[str, Any]) -> None:
        name, devices = record.get("archs"), record.get("devices")
        if isinstance(name, str):
            found = self._chosen("kernel", index, "archs", name, self._archs)
            record["archs"] = {
                d: text
                for d, text in found.items()
                if not isinstance(devices, list) or d in devices
            }

    def records(self, kind: str) -> None:
        """Expand the records of one kind; the checks report values that are not lists of tables."""
        value = self.written.data.get(kind)
        if not isinstance(value, list):
            return
        records = []
        for index, item in enumerate(value):
            record = dict(item) if isinstance(item, dict) else item
            if isinstance(record, dict):
                self._sources(kind, index, record)
                if kind == "kernel":
                    record = self._with_group(index, record)
                    self._archs_of(index, record)
            records.append(record)
        self.written.data[kind] = records


def write_out(document: Document) -> Written:
    """Expand every short form of a table.

    Raises:
        ConfigurationError: a record names a group or a list that does not exist, a group has a key
            that only kernels may have, or braces are malformed. The message names the file and the
            line.
    """
    expander = _Expander(document)
    expander.records("extension")
    expander.records("kernel")
    return expander.written
