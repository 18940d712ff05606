# SPDX-License-Identifier: Apache-2.0
"""Reads ``toolchain/wheels.toml``: the pure wheels that become packages, one line each."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from vllm_build.toolchain import wheel_metadata
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.record_reader import Document, Record, read_document

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vllm_build.toolchain.toolchain_lock import Lock, LockedFile

#: The table, and the folder that holds the template and, for some packages, license texts and
#: tests. Both are relative to the source root.
TABLE, FOLDER = "toolchain/wheels.toml", "toolchain/wheels"
TEMPLATE = "recipe.yaml"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_KEYS = ("requirement", "license", "more", "without", "test_needs")
_LINE = f'name = "distribution==version", or a table with {", ".join(_KEYS)}'
_WORDS = {
    "record": "{kind!r} is not a table",
    "unknown": "unknown key {key!r} in {what}",
    "list": "{key} of {what} is not a list of distinct strings",
    "twice": "{key} of {what} is not a list of distinct strings",
}


@dataclass(frozen=True)
class Wheel:
    """One line of the table.

    Attributes:
        name: name of the package, as conda's channels spell it.
        requirement: the exact requirement on PyPI, without extras.
        extras: the package has the requirements of these extras as well.
        license: an SPDX expression, for a wheel whose metadata has none.
        more: packages that it requires in addition to those of its metadata.
        without: distributions that its metadata requires but the package does not.
        test_needs: builds that its tests need.
        where: file and line, for messages.
    """

    name: str
    requirement: str
    extras: tuple[str, ...] = ()
    license: str = ""
    more: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    test_needs: tuple[str, ...] = ()
    where: str = field(default="", compare=False)

    @property
    def distribution(self) -> str:
        """The normalized name of the distribution on PyPI."""
        return canonicalize_name(Requirement(self.requirement).name)

    @property
    def version(self) -> str:
        """The version that the table names."""
        return next(iter(Requirement(self.requirement).specifier)).version


@dataclass(frozen=True)
class Table:
    """The whole table.

    Attributes:
        wheels: in the order of the file.
        names: distribution -> package, for packages of recipes that have another name.
    """

    wheels: tuple[Wheel, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)


class _Entry(Record):
    """The entry of one package; a string alone is its requirement.

    Errors name the line of the package.
    """

    def __init__(self, document: Document, name: str, value: str | dict[str, Any]) -> None:
        super().__init__(
            document,
            ("wheels", name),
            {"requirement": value} if isinstance(value, str) else value,
            what=name,
        )

    def line(self, what: str | None) -> int:  # noqa: ARG002 - an entry is one line
        """1-based line of the package."""
        return self.document.lines.entry("wheels", self.what)


def _requirement(record: Record) -> Requirement:
    """Parse the requirement of one version, which may have extras."""
    text = record.data.get("requirement")
    try:
        requirement = Requirement(text) if isinstance(text, str) else None
    except InvalidRequirement:
        requirement = None
    pins = [] if requirement is None else list(requirement.specifier)
    one = len(pins) == 1 and pins[0].operator == "==" and "*" not in pins[0].version
    if requirement is None or requirement.marker or requirement.url or not one:
        expected = '"distribution==version", optionally with extras: "uvicorn[standard]==0.30"'
        record.fail(None, f"{text!r} does not name one version", expected)
    return requirement


def _license(record: Record) -> str:
    found = record.data.get("license", "")
    if record.has("license") and (not isinstance(found, str) or not wheel_metadata.spdx(found)):
        expected = 'such as "MIT" or "Apache-2.0 OR BSD-2-Clause"'
        record.fail(
            "license", f"license = {found!r} of {record.what} is not an SPDX expression", expected
        )
    return str(found)


def _wheel(document: Document, name: str, value: object) -> Wheel:
    if not _NAME.fullmatch(name) or not isinstance(value, (str, dict)):
        raise document.error(
            document.lines.entry("wheels", name), f"the entry {name!r} is malformed", _LINE
        )
    record = _Entry(document, name, value)
    record.allow(*_KEYS)
    requirement = _requirement(record)
    return Wheel(
        name=name,
        requirement=f"{requirement.name}{requirement.specifier}",
        extras=tuple(sorted(requirement.extras)),
        license=_license(record),
        more=record.texts("more", required=False),
        without=tuple(map(canonicalize_name, record.texts("without", required=False))),
        test_needs=record.texts("test_needs", required=False),
        where=record.at(),
    )


def _of_document(document: Document) -> Table:
    for key in document.data:
        if key not in ("wheels", "names"):
            document.root.fail(key, f"unknown table {key!r}", "[wheels] and [names]")
    wheels = [
        _wheel(document, name, value) for name, value in document.root.table("wheels").data.items()
    ]
    names = document.root.table("names")
    for name, package in names.data.items():
        if not isinstance(package, str) or not _NAME.fullmatch(package):
            names.fail(name, f"{package!r} is not a package name", f'{name} = "package"')
    by_distribution: dict[str, Wheel] = {}
    for wheel in wheels:
        other = by_distribution.setdefault(wheel.distribution, wheel)
        if other is not wheel:
            line = document.lines.entry("wheels", wheel.name)
            raise document.error(
                line,
                f"{wheel.distribution} is already the package {other.name}",
                "one line per distribution",
            )
    return Table(
        tuple(wheels), {canonicalize_name(name): package for name, package in names.data.items()}
    )


def parse(text: str, path: Path) -> Table:
    """Parse the table; ``path`` is for messages.

    Raises:
        ConfigurationError: it is not TOML, a line is malformed, or two lines name one distribution.
    """
    return _of_document(Document(path, text, words=_WORDS))


def read(root: Path) -> Table:
    """Read the table of the source tree ``root``; empty if the tree has none.

    Raises:
        ConfigurationError: as ``parse``; the file cannot be read; the template is missing; or a
            folder in ``FOLDER`` belongs to no line.
    """
    document = read_document(root / TABLE, "the table of wheels", words=_WORDS)
    if document is None:
        return Table()
    table = _of_document(document)
    known = {wheel.name for wheel in table.wheels}
    for folder in sorted(path for path in (root / FOLDER).glob("*") if path.is_dir()):
        if folder.name not in known:
            raise ConfigurationError(
                f"{folder} belongs to no line of {TABLE}",
                expected="folders named after packages of the table only",
            )
    if table.wheels and not (root / FOLDER / TEMPLATE).is_file():
        raise ConfigurationError(
            f"{root / FOLDER / TEMPLATE} does not exist", expected="the template of all recipes"
        )
    return table


def locked_wheel(wheel: Wheel, lock: Lock) -> LockedFile | None:
    """Return the locked file of ``wheel``; ``None`` if the table's version is not locked."""
    files = lock.files.get(wheel.name, ())
    return (
        files[0]
        if files and Version(files[0].upstream_version) == Version(wheel.version.partition("+")[0])
        else None
    )
