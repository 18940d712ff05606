# SPDX-License-Identifier: Apache-2.0
"""The table of kernels, ``csrc/kernels.toml``: read, checked, and turned into typed records.

The table holds ``[[extension]]`` records (a shared library and the package output that carries it) and ``[[kernel]]`` records (sources that
are compiled together for some devices into one extension). Every mistake in it is a ConfigurationError that names the file and the line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from vllm_build._toml import TOMLDecodeError, loads
from vllm_build.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Where the table lies below the source root; sources in it are relative to this file's folder.
TABLE = "csrc/kernels.toml"
#: Devices that can have kernels. ``tpu`` and ``empty`` are devices too, and compile nothing by definition.
KERNEL_DEVICES = ("cuda", "rocm", "cpu", "xpu")
#: Bytes that the compiler of one unit of a class may take at its peak; the number of jobs follows from it.
MEMORY_CLASSES: Mapping[str, int] = {"ordinary": 3 << 29}

_EXTENSION_NAME = re.compile(r"vllm(\.[A-Za-z_][A-Za-z0-9_]*)+")
_RECORD_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
_MACRO = re.compile(r"VLLM_[A-Z0-9_]+")
_HEADER = re.compile(r"\s*\[\[\s*(\w+)\s*\]\]")


@dataclass(frozen=True)
class Extension:
    """One shared library.

    Attributes:
        name: import name, such as ``vllm._C``; the last part names the file and the ``PyInit_`` function.
        component: the package output, and CMake install component, that carries it.
        sources: units of the extension itself (its module entry point), relative to the source root.
    """

    name: str
    component: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Kernel:
    """Sources that are built together, or not at all.

    Attributes:
        name: unique in the table.
        extension: name of the extension that the sources are linked into.
        devices: devices it is built for, from KERNEL_DEVICES.
        sources: relative to the source root.
        macro: defined on these sources and on no others; None when the sources need none.
        libraries: third-party libraries the sources compile and link with, as CMake/Libraries.cmake spells them.
        memory: key of MEMORY_CLASSES.
    """

    name: str
    extension: str
    devices: tuple[str, ...]
    sources: tuple[str, ...]
    macro: str | None
    libraries: tuple[str, ...]
    memory: str


@dataclass(frozen=True)
class KernelsTable:
    """The whole table, checked. ``path`` is where it was read from."""

    path: Path
    extensions: tuple[Extension, ...]
    kernels: tuple[Kernel, ...]


class _Lines:
    """Line numbers of records, keys and strings: the TOML parser keeps none."""

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


class _Record:
    """One record under inspection: typed access to its keys, errors with their line."""

    def __init__(self, path: Path, lines: _Lines, kind: str, index: int, data: object) -> None:
        self._path, self._lines, self.kind, self.index = path, lines, kind, index
        if not isinstance(data, dict):
            raise ConfigurationError(f"{path}:{lines.top(kind)}: {kind} is not a record", expected=f"[[{kind}]] followed by keys")
        self._data: dict[str, object] = data

    def fail(self, what: str | None, message: str, expected: str) -> NoReturn:
        line = self._lines.find(self.kind, self.index, what)
        raise ConfigurationError(f"{self._path}:{line}: {message}", expected=expected, remedy=f"correct that line of {TABLE}")

    def allow(self, *known: str) -> None:
        for key in self._data:
            if key not in known:
                self.fail(key, f"unknown key {key!r} in [[{self.kind}]]", "one of " + ", ".join(known))

    def text(self, key: str, pattern: re.Pattern[str], default: str | None = None) -> str:
        value = self._data.get(key, default)
        if value is None:
            self.fail(None, f"[[{self.kind}]] has no {key!r}", f"{key} = a string that matches {pattern.pattern}")
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self.fail(key, f"{key} = {value!r} is not valid", f"a string that matches {pattern.pattern}")
        return value

    def texts(self, key: str, *, choices: tuple[str, ...] | None = None, required: bool = True) -> tuple[str, ...]:
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

    def has(self, key: str) -> bool:
        return key in self._data

    def sources(self, root: Path) -> tuple[str, ...]:
        folder = root / TABLE.rsplit("/", 1)[0]
        found = []
        for source in self.texts("sources"):
            if source.startswith("/") or ".." in source.split("/"):
                self.fail(source, f"source {source!r} leaves the folder of the table", f"a path below {folder}")
            if not (folder / source).is_file():
                self.fail(source, f"source {source!r} does not exist", f"a file below {folder}")
            found.append((folder / source).relative_to(root).as_posix())
        return tuple(found)


def _records(path: Path, lines: _Lines, data: Mapping[str, object], kind: str) -> list[_Record]:
    value = data.get(kind)
    if not isinstance(value, list) or not value:
        raise ConfigurationError(f"{path}:{lines.top(kind)}: the table has no [[{kind}]] records", expected=f"[[{kind}]] once or more")
    return [_Record(path, lines, kind, index, item) for index, item in enumerate(value)]


def _check_unique(records: list[tuple[_Record, Extension | Kernel]]) -> None:
    """No name, no macro and, for one device, no source is in two records."""
    names: set[tuple[str, str]] = set()
    macros: dict[str, str] = {}
    sources: dict[tuple[str, str], str] = {}
    for record, item in records:
        if (record.kind, item.name) in names:
            record.fail("name", f"a second [[{record.kind}]] is named {item.name!r}", "names that are unique in the table")
        names.add((record.kind, item.name))
        macro = item.macro if isinstance(item, Kernel) else None
        if macro is not None:
            if macro in macros:
                record.fail("macro", f"macro {macro!r} is used by {macros[macro]!r} too", "a macro of its own for each kernel")
            macros[macro] = item.name
        for device in item.devices if isinstance(item, Kernel) else KERNEL_DEVICES:
            for source in item.sources:
                if (device, source) in sources:
                    listed = source.split("/", 1)[1]
                    record.fail(listed, f"source {listed!r} is listed by {sources[device, source]!r} too", "a source once for a device")
                sources[device, source] = item.name


def load(root: Path) -> KernelsTable:
    """Read and check ``csrc/kernels.toml`` below the source root.

    Raises:
        ConfigurationError: the file is missing or is no TOML, a key is unknown or missing or of the wrong type, a source does not exist, a
            source is listed twice for one device, a name or a macro is used by two records. The message names the file and the line.
    """
    path = root / TABLE
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}", expected="the table of kernels", remedy="check the tree out again") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: is not UTF-8 at byte {error.start}", expected="UTF-8, as TOML is") from error
    try:
        data = loads(text)
    except TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}", expected="valid TOML", remedy="correct that line") from error
    lines = _Lines(text)
    for key in data:
        if key not in ("extension", "kernel"):
            raise ConfigurationError(f"{path}:{lines.top(key)}: unknown key {key!r}", expected="[[extension]] and [[kernel]] records only")

    checked: list[tuple[_Record, Extension | Kernel]] = []
    extensions = []
    for record in _records(path, lines, data, "extension"):
        record.allow("name", "component", "sources")
        extension = Extension(record.text("name", _EXTENSION_NAME), record.text("component", _RECORD_NAME), record.sources(root))
        extensions.append(extension)
        checked.append((record, extension))
    kernels = []
    for record in _records(path, lines, data, "kernel"):
        record.allow("name", "extension", "devices", "sources", "macro", "libraries", "memory")
        kernel = Kernel(
            name=record.text("name", _RECORD_NAME),
            extension=record.text("extension", _EXTENSION_NAME),
            devices=record.texts("devices", choices=KERNEL_DEVICES),
            sources=record.sources(root),
            macro=record.text("macro", _MACRO) if record.has("macro") else None,
            libraries=record.texts("libraries", required=False),
            memory=record.text("memory", re.compile("|".join(MEMORY_CLASSES)), default="ordinary"),
        )
        if kernel.extension not in [extension.name for extension in extensions]:
            record.fail("extension", f"no [[extension]] is named {kernel.extension!r}", "one of " + ", ".join(e.name for e in extensions))
        kernels.append(kernel)
        checked.append((record, kernel))
    _check_unique(checked)
    return KernelsTable(path, tuple(extensions), tuple(kernels))
