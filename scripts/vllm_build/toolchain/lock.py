# SPDX-License-Identifier: Apache-2.0
"""``toolchain/lock.toml``: the exact files every build of the channel starts from, by name, version and sha256; no address anywhere."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import tomlkit
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from vllm_build._toml import TOMLDecodeError, loads
from vllm_build.errors import ConfigurationError
from vllm_build.files import read_text, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

UPDATE_COMMAND = "vllm-build toolchain --update"
TYPES = ("apt", "apt-source", "pypi")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HEADER = (
    "SPDX-License-Identifier: Apache-2.0",
    f"Written by `{UPDATE_COMMAND}` from toolchain/recipes/*/sources.toml and toolchain/wheels.toml; do not edit.",
)


@dataclass(frozen=True, order=True)
class LockedFile:
    """One file.

    Attributes:
        build: id of the build that uses it.
        position: place of its package among those of the build, as ``sources.toml`` lists them; the first one names the upstream version.
        type: ``apt``, ``apt-source`` or ``pypi``; ``pypi-sdist`` for third-party sources, which this lock does not hold.
        name: package name as Debian or PyPI spell it.
        version: the full version, with Debian's epoch and revision or the local part of a wheel.
        filename: name under which the recipe finds it.
        sha256: of the content, hexadecimal.
        size: bytes; 0 where the index does not tell (PyPI's simple index).
        suite: Debian suite, empty for PyPI.
        python: interpreter version of a wheel, else empty.
        abi: ABI tag of a wheel where one was asked for, else empty.
        requires: what a wheel of wheels.toml requires, with markers; sorted. Nothing for other files.
        requires_python: versions of Python that a wheel of wheels.toml is for; empty for any.
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
        """Upstream's version: without Debian's epoch, revision and repackaging mark, without a wheel's local part.

        Examples:
            ``1:3.11.2-6+deb12u6`` -> ``3.11.2``, ``1.0.3+ds-3`` -> ``1.0.3``, ``2.13.0+cpu`` -> ``2.13.0``.
        """
        version = self.version
        if self.type != "pypi":
            version = version.partition(":")[2] if ":" in version else version
            version = version.rpartition("-")[0] if "-" in version else version
            version = re.sub(r"[+~](dfsg|ds|really|repack).*$", "", version)
        return version.partition("+")[0].replace("~", "_")

    @property
    def content(self) -> dict[str, Any]:
        """What counts of it for digests: fields that only some files have are left out where they are empty."""
        fields = asdict(self)
        return {key: value for key, value in fields.items() if value or key not in ("requires", "requires_python")}

    @property
    def label(self) -> str:
        """What to call it in a message."""
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Lock:
    """All locked files by build id."""

    files: Mapping[str, tuple[LockedFile, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Iterable[LockedFile]) -> Lock:
        """Group ``files`` by build, sorted."""
        groups: defaultdict[str, list[LockedFile]] = defaultdict(list)
        for file in files:
            groups[file.build].append(file)
        return cls({name: tuple(sorted(groups[name])) for name in sorted(groups)})

    def replaced(self, build: str, files: Iterable[LockedFile]) -> Lock:
        """This lock with the entries of ``build`` replaced."""
        return Lock.of([*(f for name, group in self.files.items() if name != build for f in group), *files])

    def of_build(self, build: str) -> tuple[LockedFile, ...]:
        """The files of one build.

        Raises:
            ConfigurationError: the lock has none for it.
        """
        try:
            return self.files[build]
        except KeyError:
            raise ConfigurationError(
                f"toolchain/lock.toml has no files for {build!r}",
                expected="one entry per source of its sources.toml",
                remedy=f"{UPDATE_COMMAND} {build}",
            ) from None


_TEXTS = ("build", "type", "name", "version", "filename", "sha256", "suite", "python", "abi", "requires_python")
_NUMBERS = ("position", "size")
_LISTS = ("requires",)
_ORDER = (
    *("build", "position", "type", "name", "version", "suite", "python", "abi", "filename", "size", "sha256"),
    *("requires_python", "requires"),
)
_REQUIRED = ("build", "position", "type", "name", "version", "filename", "sha256")


def _complaint(table: Any) -> tuple[str, str] | None:
    """What is wrong with one entry and what is expected instead; ``None`` when nothing is."""
    if not isinstance(table, dict):
        return "not a table", "[[file]] tables"
    for key, value in table.items():
        if key not in _TEXTS + _NUMBERS + _LISTS:
            return f"unknown key {key!r}", "one of " + ", ".join(_TEXTS + _NUMBERS + _LISTS)
        if key in _LISTS and (not isinstance(value, list) or not all(isinstance(item, str) for item in value)):
            return f"{key!r} is not a list of texts", f'{key} = ["..."]'
        if key in _TEXTS and (not isinstance(value, str) or not value):
            return f"{key!r} is not a text", f'{key} = "..."'
        if key in _NUMBERS and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            return f"{key!r} is not a number", f"{key} = 1"
    return _content_complaint(table)


def _content_complaint(table: Mapping[str, Any]) -> tuple[str, str] | None:
    for key in _REQUIRED:
        if key not in table:
            return f"{key!r} is missing", "a complete entry"
    if not _SHA256.fullmatch(table["sha256"]):
        return "sha256 is malformed", "64 lower-case hexadecimal digits"
    if table["type"] not in TYPES:
        return f"unknown type {table['type']!r}", "one of " + ", ".join(TYPES)
    if "/" in table["filename"] or table["filename"].startswith("."):
        return f"filename {table['filename']!r} is not a plain name", "a name without folders"
    for text in table.get("requires", ()):
        try:
            Requirement(text)
        except InvalidRequirement:
            return f"{text!r} is no requirement", 'requires = ["name>=1"]'
    try:
        SpecifierSet(table.get("requires_python", ""))
    except InvalidSpecifier:
        return "requires_python is malformed", 'requires_python = ">=3.10"'
    return None


def _entry(path: Path, number: int, table: Any) -> LockedFile:
    complaint = _complaint(table)
    if complaint is not None:
        raise ConfigurationError(f"{path}: [[file]] number {number}: {complaint[0]}", expected=complaint[1], remedy=UPDATE_COMMAND)
    fields: dict[str, Any] = {key: tuple(value) if key in _LISTS else value for key, value in table.items()}
    return LockedFile(**fields)


def parse(text: str, path: Path) -> Lock:
    """Parse the lock; ``path`` is for messages.

    Raises:
        ConfigurationError: not TOML, or an entry that is not complete and well formed.
    """
    try:
        data = loads(text)
    except TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}", remedy=UPDATE_COMMAND) from error
    if set(data) - {"file"} or not isinstance(data.get("file", []), list):
        raise ConfigurationError(f"{path}: unknown content {sorted(data)}", expected="[[file]] tables only", remedy=UPDATE_COMMAND)
    return Lock.of(_entry(path, number, table) for number, table in enumerate(data.get("file", []), 1))


def path_of(root: Path) -> Path:
    """Where the lock of the source tree ``root`` lies."""
    return root / "toolchain" / "lock.toml"


def read(root: Path) -> Lock:
    """The lock of the source tree ``root``; empty when there is none yet.

    Raises:
        ConfigurationError: as ``parse``.
    """
    path = path_of(root)
    try:
        text = read_text(path)
    except FileNotFoundError:
        return Lock()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"{path}: {reason}", expected="the lock of the toolchain, as UTF-8 text") from error
    return parse(text, path)


def dumps(lock: Lock) -> str:
    """The lock as text: same content, same bytes."""
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
    """Write the lock of the source tree ``root``, whole or not at all."""
    write_text(path_of(root), dumps(lock))
