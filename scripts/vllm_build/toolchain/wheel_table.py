# SPDX-License-Identifier: Apache-2.0
"""Reads ``toolchain/wheels.toml``: the wheels that become packages, one line each."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from vllm_build.toolchain import pip_selection, wheel_metadata
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
_PYTHON = re.compile(r"3\.[0-9]{1,2}")
_KEYS = ("requirement", "kind", "license", "more", "without", "test_needs")
_LINE = f'name = "distribution==version", or a table with {", ".join(_KEYS)}'
#: The tables of lines. Packages of the second one are made on request only.
_GROUPS = ("wheels", "engine")
#: The tables whose values are packages.
_PACKAGES = ("names", "libraries")
#: A wheel for any platform; one for the stable ABI, or without any; one for each interpreter.
PURE, ABI3, COMPILED = "pure", "abi3", "compiled"
#: The interpreter whose wheels are taken where one wheel serves all.
DEFAULT_PYTHON = "3.11"
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
        kind: ``PURE``, ``ABI3`` or ``COMPILED``.
        extras: the package has the requirements of these extras as well.
        license: an SPDX expression, for a wheel whose metadata has none.
        more: packages that it requires in addition to those of its metadata.
        without: distributions that its metadata requires but the package does not.
        test_needs: builds that its tests need.
        on_request: it is made only if it, or a build that needs it, is asked for.
        where: file and line, for messages.
    """

    name: str
    requirement: str
    kind: str = PURE
    extras: tuple[str, ...] = ()
    license: str = ""
    more: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    test_needs: tuple[str, ...] = ()
    on_request: bool = False
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
class Target:
    """One build of a line.

    Attributes:
        wheel: the line.
        id: of the build.
        python: the interpreter that the wheel must fit, such as ``3.13``.
        abi: the ABI tag that is asked for, as ``PypiSource.abi``.
    """

    wheel: Wheel
    id: str
    python: str = DEFAULT_PYTHON
    abi: str | None = pip_selection.PURE

    @property
    def series(self) -> str:
        """The one interpreter of the package; empty if it is for several."""
        return self.python if self.wheel.kind == COMPILED else ""


@dataclass(frozen=True)
class Table:
    """The whole table.

    Attributes:
        wheels: in the order of the file.
        names: distribution -> package, for packages of recipes that have another name.
        libraries: shared library -> the package that has it.
        pythons: the interpreters that compiled wheels are taken for.
    """

    wheels: tuple[Wheel, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    pythons: tuple[str, ...] = (DEFAULT_PYTHON,)

    def targets(self, wheel: Wheel) -> tuple[Target, ...]:
        """The builds of one line."""
        if wheel.kind == COMPILED:
            return tuple(
                Target(wheel, f"{wheel.name}-{python}", python, None) for python in self.pythons
            )
        return (Target(wheel, wheel.name, abi=_ABIS[wheel.kind]),)


#: The ABI tags that are asked for where one wheel serves all interpreters.
_ABIS = {PURE: pip_selection.PURE, ABI3: "abi3"}


class _Entry(Record):
    """The entry of one package; a string alone is its requirement.

    Errors name the line of the package.
    """

    def __init__(
        self, document: Document, group: str, name: str, value: str | dict[str, Any]
    ) -> None:
        self._group = group
        super().__init__(
            document,
            (group, name),
            {"requirement": value} if isinstance(value, str) else value,
            what=name,
        )

    def line(self, what: str | None) -> int:  # noqa: ARG002 - an entry is one line
        """1-based line of the package."""
        return self.document.lines.entry(self._group, self.what)


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


def _wheel(document: Document, group: str, name: str, value: object) -> Wheel:
    if not _NAME.fullmatch(name) or not isinstance(value, (str, dict)):
        raise document.error(
            document.lines.entry(group, name), f"the entry {name!r} is malformed", _LINE
        )
    record = _Entry(document, group, name, value)
    record.allow(*_KEYS)
    requirement = _requirement(record)
    return Wheel(
        name=name,
        requirement=f"{requirement.name}{requirement.specifier}",
        kind=record.text("kind", choices=(PURE, ABI3, COMPILED), default=PURE),
        extras=tuple(sorted(requirement.extras)),
        license=_license(record),
        more=record.texts("more", required=False),
        without=tuple(map(canonicalize_name, record.texts("without", required=False))),
        test_needs=record.texts("test_needs", required=False),
        on_request=group != _GROUPS[0],
        where=record.at(),
    )


def _pythons(root: Record) -> tuple[str, ...]:
    found = root.data.get("pythons", [DEFAULT_PYTHON])
    texts = [text for text in found if isinstance(text, str)] if isinstance(found, list) else []
    if not texts or texts != found or not all(map(_PYTHON.fullmatch, texts)):
        root.fail("pythons", "pythons is not a list of interpreters", 'pythons = ["3.11", "3.13"]')
    if len(set(texts)) < len(texts):
        root.fail("pythons", "pythons lists an interpreter twice", "each once")
    return tuple(texts)


def _packages(record: Record) -> Mapping[str, str]:
    """Read a table whose values are names of packages."""
    for name, package in record.data.items():
        if not isinstance(package, str) or not _NAME.fullmatch(package):
            record.fail(name, f"{package!r} is not a package name", f'{name} = "package"')
    return record.data


def _of_document(document: Document) -> Table:
    for key in document.data:
        if key not in ("pythons", *_GROUPS, *_PACKAGES):
            document.root.fail(
                key, f"unknown table {key!r}", "[wheels], [engine], [names] and [libraries]"
            )
    lines = [
        (group, _wheel(document, group, name, value))
        for group in _GROUPS
        for name, value in document.root.table(group).data.items()
    ]
    names, libraries = (_packages(document.root.table(name)) for name in _PACKAGES)
    by_distribution: dict[str, Wheel] = {}
    for group, wheel in lines:
        other = by_distribution.setdefault(wheel.distribution, wheel)
        if other is not wheel:
            line = document.lines.entry(group, wheel.name)
            raise document.error(
                line,
                f"{wheel.distribution} is already the package {other.name}",
                "one line per distribution",
            )
    return Table(
        tuple(wheel for _, wheel in lines),
        {canonicalize_name(name): package for name, package in names.items()},
        libraries,
        _pythons(document.root),
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


def locked_wheel(target: Target, lock: Lock) -> LockedFile | None:
    """Return the locked file of one build; ``None`` if the table's version is not locked."""
    files, wheel = lock.files.get(target.id, ()), target.wheel
    return (
        files[0]
        if files and Version(files[0].upstream_version) == Version(wheel.version.partition("+")[0])
        else None
    )
