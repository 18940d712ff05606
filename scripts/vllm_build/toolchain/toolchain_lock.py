# SPDX-License-Identifier: Apache-2.0
"""Reads and writes ``toolchain/lock.toml``, which lists the exact files of every channel build.

Each entry has a name, a version and a sha256, but no address.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import tomlkit
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from vllm_build.util.errors import ConfigurationError
from vllm_build.util.files import write_text
from vllm_build.util.record_reader import Document, Record, read_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

UPDATE_COMMAND = "vllm-build toolchain --update"
TYPES = ("apt", "apt-source", "pypi")
_HEADER = (
    "SPDX-License-Identifier: Apache-2.0",
    (
        f"Written by `{UPDATE_COMMAND}` from toolchain/recipes/*/sources.toml and "
        "toolchain/wheels.toml; do not edit."
    ),
)


@dataclass(frozen=True, order=True)
class LockedFile:
    """One locked file.

    Attributes:
        build: id of the build that uses it.
        position: position of its package in ``sources.toml``. The first package gives the upstream
            version.
        type: ``apt``, ``apt-source`` or ``pypi``; ``pypi-sdist`` for third-party sources, which are
            not in this lock.
        name: package name as Debian or PyPI spell it.
        version: the full version, with Debian's epoch and revision or the local part of a wheel.
        filename: the name of the file, by which the recipe finds it.
        sha256: of the content, hexadecimal.
        size: bytes; 0 if the index does not give it (PyPI's simple index).
        suite: Debian suite, empty for PyPI.
        python: interpreter version of a wheel, else empty.
        abi: ABI tag of a wheel if one was requested, else empty.
        requires: the requirements of a wheel of wheels.toml, with markers, sorted. Empty for other
            files.
        requires_python: the versions of Python that a wheel of wheels.toml supports; empty for all.
    """

    build: str
    position: int
    type: str
    name: str
    version: str
    filename: str
    sha256: str
    size: int = 0
    suite: str = ""
    python: str = ""
    abi: str = ""
    requires: tuple[str, ...] = ()
    requires_python: str = ""

    @property
    def upstream_version(self) -> str:
        """Upstream's version.

        It lacks Debian's epoch, revision and repackaging mark, and a wheel's local part.

        Examples:
            ``1:3.11.2-6+deb12u6`` -> ``3.11.2``, ``1.0.3+ds-3`` -> ``1.0.3``, ``2.13.0+cpu`` ->
            ``2.13.0``.
        """
        version = self.version
        if self.type != "pypi":
            version = version.partition(":")[2] if ":" in version else version
            version = version.rpartition("-")[0] if "-" in version else version
            version = re.sub(r"[+~](dfsg|ds|really|repack).*$", "", version)
        return version.partition("+")[0].replace("~", "_")

    @property
    def content(self) -> dict[str, Any]:
        """The fields that digests cover; ``requires`` and ``requires_python`` only if not empty."""
        fields = asdict(self)
        return {
            key: value
            for key, value in fields.items()
            if value or key not in ("requires", "requires_python")
        }

    @property
    def label(self) -> str:
        """Name and version, for messages."""
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Lock:
    """All locked files by build id."""

    files: Mapping[str, tuple[LockedFile, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Iterable[LockedFile]) -> Lock:
        """Make a lock of ``files``: grouped by build and sorted."""
        groups: defaultdict[str, list[LockedFile]] = defaultdict(list)
        for file in files:
            groups[file.build].append(file)
        return cls({name: tuple(sorted(groups[name])) for name in sorted(groups)})

    def replaced(self, build: str, files: Iterable[LockedFile]) -> Lock:
        """Return a copy with the entries of ``build`` replaced."""
        return Lock.of(
            [*(f for name, group in self.files.items() if name != build for f in group), *files]
        )

    def of_build(self, build: str) -> tuple[LockedFile, ...]:
        """Return the files of one build.

        Raises:
            ConfigurationError: the lock has no files for it.
        """
        try:
            return self.files[build]
        except KeyError:
            raise ConfigurationError(
                f"toolchain/lock.toml has no files for {build!r}",
                expected="one entry per source of its sources.toml",
                remedy=f"{UPDATE_COMMAND} {build}",
            ) from None


_LISTS = ("requires",)
_ORDER = (
    *(
        "build",
        "position",
        "type",
        "name",
        "version",
        "suite",
        "python",
        "abi",
        "filename",
        "size",
        "sha256",
    ),
    *("requires_python", "requires"),
)
_WORDS = {
    "record": "not a table",
    "unknown": "unknown key {key!r}",
    "missing": "{key!r} is missing",
    "text": "{key!r} is not a string",
    "list": "{key!r} is not a list of strings",
    "number": "{key!r} is not a number",
}


def _file_name(record: Record) -> str:
    name = record.text("filename")
    if "/" in name or name.startswith("."):
        record.fail(
            "filename", f"filename {name!r} is not a plain file name", "a name without folders"
        )
    return name


def _requires(record: Record) -> tuple[str, ...]:
    found = record.texts("requires", required=False)
    for text in found:
        try:
            Requirement(text)
        except InvalidRequirement:
            record.fail(text, f"{text!r} is not a requirement", 'requires = ["name>=1"]')
    return found


def _requires_python(record: Record) -> str:
    text = record.text("requires_python", default="")
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        record.fail("requires_python", "requires_python is malformed", 'requires_python = ">=3.10"')
    return text


def _entry(document: Document, number: int, table: object) -> LockedFile:
    record = Record(
        document, ("file", number), table, what="[[file]]", label=f"[[file]] number {number + 1}: "
    )
    record.allow(*_ORDER)
    return LockedFile(
        build=record.text("build"),
        position=record.number("position"),
        type=record.text("type", choices=TYPES),
        name=record.text("name"),
        version=record.text("version"),
        filename=_file_name(record),
        sha256=record.sha256("sha256"),
        size=record.number("size", default=0),
        suite=record.text("suite", default=""),
        python=record.text("python", default=""),
        abi=record.text("abi", default=""),
        requires=_requires(record),
        requires_python=_requires_python(record),
    )


def _of_document(document: Document) -> Lock:
    data = document.data
    if set(data) - {"file"} or not isinstance(data.get("file", []), list):
        document.root.fail(None, f"unknown content {sorted(data)}", "[[file]] tables only")
    return Lock.of(
        _entry(document, number, table) for number, table in enumerate(data.get("file", []))
    )


def parse(text: str, path: Path) -> Lock:
    """Parse the lock; ``path`` is for messages.

    Raises:
        ConfigurationError: it is not TOML, or an entry is incomplete or malformed. The message
            names the line.
    """
    return _of_document(Document(path, text, remedy=UPDATE_COMMAND, words=_WORDS))


def path_of(root: Path) -> Path:
    """The path of the lock in the source tree ``root``."""
    return root / "toolchain" / "lock.toml"


def read(root: Path) -> Lock:
    """Read the lock of the source tree ``root``; empty if there is none yet.

    Raises:
        ConfigurationError: as ``parse``, or the file cannot be read.
    """
    document = read_document(
        path_of(root),
        "the lock of the toolchain, as UTF-8 text",
        remedy=UPDATE_COMMAND,
        words=_WORDS,
    )
    return Lock() if document is None else _of_document(document)


def dumps(lock: Lock) -> str:
    """Return the lock as text. The same content gives the same bytes."""
    document = tomlkit.document()
    for line in _HEADER:
        document.add(tomlkit.comment(line))
    tables = tomlkit.aot()
    for group in lock.files.values():
        for file in group:
            table = tomlkit.table()
            for key in _ORDER:
                value = getattr(file, key)
                if value or key == "position":
                    table.add(key, list(value) if key in _LISTS else value)
            tables.append(table)
    document.add("file", tables)
    return tomlkit.dumps(document)


def write(root: Path, lock: Lock) -> None:
    """Write the lock of the source tree ``root`` atomically."""
    write_text(path_of(root), dumps(lock))
