# SPDX-License-Identifier: Apache-2.0
"""``toolchain/wheels.toml``: pure wheels that become packages, one line each, and what they need of the channel.

A wheel's requirements are in the lock, where ``--update`` writes them, so what needs what is known
without the network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from vllm_build.toolchain import toolchain_lock, wheel_metadata
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.record_reader import Document, Record, read_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from vllm_build.toolchain.toolchain_builds import Build
    from vllm_build.toolchain.toolchain_lock import Lock, LockedFile

#: The table, and the folder with the template and, for some packages, license texts and tests; both
#: below the source root.
TABLE, FOLDER = "toolchain/wheels.toml", "toolchain/wheels"
TEMPLATE = "recipe.yaml"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_KEYS = ("requirement", "license", "more", "without", "test_needs")
_LINE = f'name = "distribution==version", or a table with {", ".join(_KEYS)}'
_WORDS = {
    "record": "{kind!r} is no table",
    "unknown": "unknown key {key!r} of {what}",
    "list": "{key} of {what} is not a list of texts, each once",
    "twice": "{key} of {what} is not a list of texts, each once",
}


@dataclass(frozen=True)
class Wheel:
    """One line of the table.

    Attributes:
        name: of the package, as conda's channels spell it.
        requirement: the exact requirement on PyPI, without extras.
        extras: whose requirements the package has as well.
        license: an SPDX expression where the wheel's metadata has none.
        more: packages that it requires besides what its metadata says.
        without: distributions that its metadata requires, and the package does not.
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
        """Its name on PyPI, as the Python standards spell it."""
        return canonicalize_name(Requirement(self.requirement).name)

    @property
    def version(self) -> str:
        """The version that the table names."""
        return next(iter(Requirement(self.requirement).specifier)).version


@dataclass(frozen=True)
class Table:
    """The whole table.

    Attributes:
        wheels: by the order of the file.
        names: distribution -> package, where a recipe of its own makes it under another name.
    """

    wheels: tuple[Wheel, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Maker:
    """A build of the channel that makes a package: its id, and the version that the lock says, if it says one."""

    build: str
    version: str = ""
    extras: tuple[str, ...] = ()


@dataclass(frozen=True)
class Required:
    """What a package needs: the builds that make it, and its requirements as conda's solver reads them."""

    needs: tuple[str, ...]
    run: tuple[str, ...]


class _Entry(Record):
    """What the table says of one package; a text alone is its requirement.

    Every mistake in it is on the line of the package.
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
    """The requirement of one version, perhaps with extras."""
    text = record.data.get("requirement")
    try:
        requirement = Requirement(text) if isinstance(text, str) else None
    except InvalidRequirement:
        requirement = None
    pins = [] if requirement is None else list(requirement.specifier)
    one = len(pins) == 1 and pins[0].operator == "==" and "*" not in pins[0].version
    if requirement is None or requirement.marker or requirement.url or not one:
        expected = '"distribution==version", with extras if need be: "uvicorn[standard]==0.30"'
        record.fail(None, f"{text!r} does not name one version", expected)
    return requirement


def _license(record: Record) -> str:
    found = record.data.get("license", "")
    if record.has("license") and (not isinstance(found, str) or not wheel_metadata.spdx(found)):
        expected = 'such as "MIT" or "Apache-2.0 OR BSD-2-Clause"'
        record.fail(
            "license", f"license = {found!r} of {record.what} is no SPDX expression", expected
        )
    return str(found)


def _wheel(document: Document, name: str, value: object) -> Wheel:
    if not _NAME.fullmatch(name) or not isinstance(value, (str, dict)):
        raise document.error(
            document.lines.entry("wheels", name), f"{name!r} is no line for a package", _LINE
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
            names.fail(name, f"{package!r} is no name of a package", f'{name} = "package"')
    by_distribution: dict[str, Wheel] = {}
    for wheel in wheels:
        other = by_distribution.setdefault(wheel.distribution, wheel)
        if other is not wheel:
            line = document.lines.entry("wheels", wheel.name)
            raise document.error(
                line,
                f"{wheel.distribution} is the package {other.name} already",
                "a distribution on one line",
            )
    return Table(
        tuple(wheels), {canonicalize_name(name): package for name, package in names.data.items()}
    )


def parse(text: str, path: Path) -> Table:
    """Parse the table; ``path`` is for messages.

    Raises:
        ConfigurationError: not TOML, a malformed line, or one distribution on two lines.
    """
    return _of_document(Document(path, text, words=_WORDS))


def read(root: Path) -> Table:
    """The table of the source tree ``root``; empty when it has none.

    Raises:
        ConfigurationError: as ``parse``, it cannot be read, or a folder beside it belongs to no
            line.
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
                expected="a folder named like a package of the table",
            )
    if table.wheels and not (root / FOLDER / TEMPLATE).is_file():
        raise ConfigurationError(
            f"{root / FOLDER / TEMPLATE} does not exist", expected="the template of the recipes"
        )
    return table


def locked_wheel(wheel: Wheel, lock: Lock) -> LockedFile | None:
    """The file of ``wheel`` in the lock; None where the lock has none, or one of another version than the table says."""
    files = lock.files.get(wheel.name, ())
    return (
        files[0]
        if files and Version(files[0].upstream_version) == Version(wheel.version.partition("+")[0])
        else None
    )


def makers_of(recipes: Iterable[Build], lock: Lock) -> dict[str, list[Maker]]:
    """Package -> the builds with a recipe of their own that make it; none of those that are made on request only."""
    found: dict[str, list[Maker]] = {}
    for build in recipes:
        files = lock.files.get(build.id, ())
        for package in () if build.on_request else build.makes:
            found.setdefault(package, []).append(
                Maker(build.id, files[0].upstream_version if files else build.version)
            )
    return found


class _Resolver:
    """Finds what makes each requirement of the table's wheels."""

    def __init__(
        self,
        table: Table,
        lock: Lock,
        makers: Mapping[str, Sequence[Maker]],
        pythons: Sequence[str],
    ) -> None:
        self._lock, self._pythons = lock, pythons
        #: Distribution -> the package, and the builds that make it.
        self._made: dict[str, tuple[str, Sequence[Maker]]] = {
            canonicalize_name(name): (name, group) for name, group in makers.items()
        }
        for wheel in table.wheels:
            file = locked_wheel(wheel, lock)
            self._made[wheel.distribution] = (
                wheel.name,
                [Maker(wheel.name, file.version if file else wheel.version, wheel.extras)],
            )
        for name, package in table.names.items():
            if package not in makers:
                raise ConfigurationError(
                    f"{TABLE}: [names] says that {name} is {package}, which no recipe makes",
                    expected="a package that a recipe makes",
                )
            self._made[name] = (package, makers[package])
        self.missing: list[str] = []

    def _check(
        self, need: wheel_metadata.Needed, makers: Sequence[Maker], wheel: Wheel, file: LockedFile
    ) -> None:
        what = f"{wheel.where}: {file.name} {file.version} requires {need.name}{need.specifier}"
        for maker in makers:
            if maker.version and not need.specifier.contains(maker.version, prereleases=True):
                raise ConfigurationError(
                    f"{what}, and the channel has {maker.version} ({maker.build})",
                    expected=f"a version of {need.name} that satisfies it, or another one of "
                    f"{wheel.name}",
                    remedy=f"change one of the two versions, then {toolchain_lock.UPDATE_COMMAND}",
                )
            if absent := sorted(need.extras - set(maker.extras)):
                raise ConfigurationError(
                    f"{what} with the extra {absent[0]!r}",
                    expected=f'"{need.name}[{",".join(sorted(need.extras | set(maker.extras)))}]==…" in {TABLE}',
                    remedy=f"name the extra there, or list {need.name} in `without` of "
                    f"{wheel.name}",
                )

    def required(self, wheel: Wheel) -> Required:
        """What one package needs; nothing where the lock does not have its line yet."""
        file = locked_wheel(wheel, self._lock)
        if file is None:
            return Required((), ())
        usable = wheel_metadata.usable_pythons(file.requires_python, self._pythons)
        if not usable:
            raise ConfigurationError(
                f"{wheel.where}: {file.name} {file.version} is for Python {file.requires_python}",
                expected=f"a version for one of {', '.join(self._pythons)}, the interpreters of "
                "the channel",
                remedy="choose another version",
            )
        needs, run = (
            set(wheel.test_needs),
            [f"python {wheel_metadata.conda_python(file.requires_python, usable)}"],
        )
        listed = [
            need
            for need in wheel_metadata.needed(file.requires, wheel.extras, usable)
            if need.name not in wheel.without
        ]
        named = {
            name: wheel_metadata.Needed(canonicalize_name(name), SpecifierSet(), frozenset())
            for name in wheel.more
        }
        for need in (*listed, *named.values()):
            if need.name not in self._made:
                who = (
                    f"{file.name} {file.version} requires"
                    if need in listed
                    else f"`more` of {wheel.name} names"
                )
                self.missing.append(
                    f"{wheel.where}: {who} {need.name}{need.specifier}, which nothing in the "
                    "channel makes"
                )
                continue
            package, makers = self._made[need.name]
            self._check(need, makers, wheel, file)
            needs.update(maker.build for maker in makers)
            run.append(f"{package} {wheel_metadata.conda_versions(need.specifier)}".strip())
        return Required(tuple(sorted(needs)), tuple(run))


def require(
    table: Table, lock: Lock, makers: Mapping[str, Sequence[Maker]], pythons: Sequence[str]
) -> dict[str, Required]:  # fmt: skip
    """What every package of the table needs; nothing for one whose line the lock does not have yet.

    Args:
        table: what ``read`` returned.
        lock: of the same tree.
        makers: package -> the builds that make it with a recipe of their own.
        pythons: versions of the channel's interpreters.

    Raises:
        ConfigurationError: nothing makes what a wheel requires, or another version of it; a wheel
            is for none of the interpreters; nothing makes a package of ``[names]``. The message
            names the line of the wheel.
    """
    resolver = _Resolver(table, lock, makers, pythons)
    found = {wheel.name: resolver.required(wheel) for wheel in table.wheels}
    if resolver.missing:
        raise ConfigurationError(
            "\n".join(resolver.missing),
            expected=f"a line of {TABLE} or a recipe for each; under [names], if the recipe's "
            "package has another name",
            remedy=f"add them, then {toolchain_lock.UPDATE_COMMAND}; or list in `without` what the "
            "package does not need",
        )
    return found
