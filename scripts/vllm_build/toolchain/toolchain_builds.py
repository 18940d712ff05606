# SPDX-License-Identifier: Apache-2.0
"""Reads the builds of the channel from ``toolchain/recipes/*/sources.toml`` and ``wheels.toml``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from packaging.requirements import InvalidRequirement, Requirement

from vllm_build.toolchain import (
    build_order,
    debian_suites,
    toolchain_lock,
    wheel_resolver,
    wheel_table,
)
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.record_reader import require_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from vllm_build.util.record_reader import Record

#: The interpreter whose wheels are taken if a source names none. The result must not depend on the
#: interpreter that runs the build.
DEFAULT_PYTHON = wheel_table.DEFAULT_PYTHON
_ID = re.compile(r"[a-z0-9][a-z0-9._-]*")
_DEBIAN_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_ABI = re.compile(r"cp3[0-9]{1,2}t?|abi3")
_PYTHON = re.compile(r"3\.[0-9]{1,2}")
_WORDS = {
    "records": "{what} has no {kind!r} tables",
    "missing": "{what} needs the string {key!r}",
    "text": "{what} needs the string {key!r}",
    "pattern": "{key} = {value!r} in {what} is malformed",
    "list": "{key!r} in {what} is not a list of strings",
    "twice": "{key!r} in {what} lists an entry twice",
    "flag": "{key!r} in {what} is neither true nor false",
    "table": "{key!r} in {what} is not a table of strings",
}


@dataclass(frozen=True)
class AptSource:
    """Debian binary packages, without their dependencies."""

    suite: str
    packages: tuple[str, ...]


@dataclass(frozen=True)
class AptSourcePackage:
    """All files of one Debian source package: ``.dsc``, upstream archives and Debian's changes."""

    suite: str
    package: str


@dataclass(frozen=True)
class PypiSource:
    """One wheel from pip's index.

    Attributes:
        requirement: an exact requirement such as ``numpy==2.4.6``. ``torch===2.13.0`` excludes
            ``2.13.0+local``, which ``==`` accepts and which is another file.
        python: version of the interpreter that the wheel must fit, such as ``3.13``.
        abi: ABI tag if the version alone does not determine it, such as ``cp313t``; ``none`` for a
            wheel without compiled code.
    """

    requirement: str
    python: str = DEFAULT_PYTHON
    abi: str | None = None


Source: TypeAlias = AptSource | AptSourcePackage | PypiSource


@dataclass(frozen=True)
class Build:
    """One run of rattler-build for the channel.

    Attributes:
        id: its name.
        folder: the folder of its recipe, or of a wheel's tests and license texts.
        sources: what it is made from.
        needs: builds whose packages must be in the channel before.
        variant: the values of the recipe's variant keys.
        version: of a package that has no sources, such as a metapackage.
        packages: the packages of a recipe with several outputs. Empty for one package, which has
            the name of the folder.
        on_request: it is made only if it, or a build that needs it, is asked for. Such builds are
            large and rarely used.
        wheel: its line in ``wheels.toml``, if it has no recipe; the recipe is then written during
            the build.
        runs: builds that make what the package of such a line requires at run time. They do not
            shape the package, so its digest does not cover them.
        run: the run requirements of that package.
    """

    id: str
    folder: Path
    sources: tuple[Source, ...]
    needs: tuple[str, ...] = ()
    variant: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    packages: tuple[str, ...] = ()
    on_request: bool = False
    wheel: wheel_table.Target | None = None
    runs: tuple[str, ...] = ()
    run: tuple[str, ...] = ()

    @property
    def recipe(self) -> Path:
        """The recipe file; for a wheel of the table, the template."""
        return (self.folder if self.wheel is None else self.folder.parent) / "recipe.yaml"

    @property
    def where(self) -> str:
        """The file that defines the build, for messages."""
        return f"{self.folder}/sources.toml" if self.wheel is None else self.wheel.wheel.where

    @property
    def python(self) -> str:
        """The interpreter that its packages are for, such as ``3.13t``; empty for all."""
        return self.variant.get("python_version", "")

    @property
    def makes(self) -> tuple[str, ...]:
        """The names of its packages. Builds of one folder make the same names, per variant."""
        return self.packages or (self.folder.name,)


def _suite(record: Record) -> str:
    return record.text("suite", choices=debian_suites.SPELLINGS)


def _exact(record: Record) -> str:
    """Read the requirement of one version, without extras and markers."""
    text = record.text("requirement")
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        record.fail(
            "requirement",
            f"{text!r} in {record.what} is not a requirement: {error}",
            "name==version",
        )
    pins = list(requirement.specifier)
    one = len(pins) == 1 and pins[0].operator in ("==", "===") and "*" not in pins[0].version
    if not one or requirement.marker or requirement.extras or requirement.url:
        record.fail(
            "requirement",
            f"{text!r} in {record.what} does not name one version",
            "name==version or name===version",
        )
    return text


def _source(record: Record) -> Source:
    kind = record.text("type", choices=("apt", "apt-source", "pypi"))
    if kind == "apt":
        record.allow("type", "suite", "packages")
        packages = record.texts("packages", required=False)
        bad = [name for name in packages if not _DEBIAN_NAME.fullmatch(name)]
        if bad or not packages:
            record.fail(
                bad[0] if bad else "packages",
                f"'packages' in {record.what} needs Debian package names",
                '["libc6"]',
            )
        return AptSource(_suite(record), packages)
    if kind == "apt-source":
        record.allow("type", "suite", "package")
        return AptSourcePackage(_suite(record), record.text("package", _DEBIAN_NAME))
    record.allow("type", "requirement", "python", "abi")
    return PypiSource(
        requirement=_exact(record),
        python=record.text("python", _PYTHON, default=DEFAULT_PYTHON),
        abi=record.text("abi", _ABI) if record.has("abi") else None,
    )


def _build(record: Record, folder: Path) -> Build:
    name = record.text("id", _ID)
    record.what = f"build {name!r}"
    record.allow("id", "variant", "needs", "source", "version", "packages", "on_request")
    if record.has("version") == record.has("source"):
        record.fail(
            None,
            f"{record.what} needs either sources or a version",
            '[[build.source]] tables, or version = "..."',
        )
    return Build(
        id=name,
        folder=folder,
        sources=tuple(map(_source, record.records("source", f"a source of {record.what}")))
        if record.has("source")
        else (),
        version=record.text("version", default=""),
        needs=record.texts("needs", required=False),
        variant=record.texts_by("variant"),
        packages=record.texts("packages", required=False),
        on_request=record.flag("on_request"),
    )


def parse_file(path: Path) -> list[Build]:
    """Parse one ``sources.toml``.

    Raises:
        ConfigurationError: it is not TOML, a key is unknown or missing, a value is malformed, or
            there is no recipe next to it. The message names the line.
    """
    document = require_document(path, "the sources of a recipe", words=_WORDS)
    document.root.allow("build")
    builds = [
        _build(record, path.parent)
        for record in document.root.records("build", "a [[build]] table")
    ]
    if not (path.parent / "recipe.yaml").is_file():
        raise ConfigurationError(
            f"{path}: there is no recipe.yaml next to it", expected="a recipe for these sources"
        )
    return builds


def recipes_folder(root: Path) -> Path:
    """The folder of the channel's recipes in the source tree ``root``."""
    return root / "toolchain" / "recipes"


def _of_wheels(root: Path, recipes: Iterable[Build], lock: toolchain_lock.Lock) -> list[Build]:
    """The builds of ``wheels.toml``; ``recipes`` are all other builds."""
    table, makers = wheel_table.read(root), wheel_resolver.makers_of(recipes, lock)
    pythons = sorted({maker.version for maker in makers.get("python", ()) if maker.version})
    required = wheel_resolver.require(table, lock, makers, pythons or [DEFAULT_PYTHON])
    return [
        Build(
            id=target.id,
            folder=root / wheel_table.FOLDER / wheel.name,
            sources=(PypiSource(wheel.requirement, target.python, target.abi),),
            needs=wheel.test_needs,
            variant={"python_version": target.series} if target.series else {},
            on_request=wheel.on_request,
            wheel=target,
            runs=required[target.id].runs,
            run=required[target.id].run,
        )
        for wheel in table.wheels
        for target in table.targets(wheel)
    ]


def load(root: Path, lock: toolchain_lock.Lock | None = None) -> list[Build]:
    """Read all builds of the source tree ``root``, in build order.

    Args:
        root: the source tree.
        lock: a new lock to check against; ``None`` for the lock of the tree.

    Raises:
        ConfigurationError: as ``parse_file``, ``wheel_table.read``, ``wheel_resolver.require`` and
            ``build_order.ordered``, or the tree has no recipe.
    """
    files = sorted(recipes_folder(root).glob("*/sources.toml"))
    builds = [build for path in files for build in parse_file(path)]
    builds += _of_wheels(root, builds, toolchain_lock.read(root) if lock is None else lock)
    if not builds:
        raise ConfigurationError(
            f"{recipes_folder(root)} has no */sources.toml",
            expected="the recipes of the toolchain channel",
        )
    return build_order.ordered(builds)


def required(build: Build, python: str) -> Iterator[tuple[str, str]]:
    """The builds that ``build`` needs directly, each with the interpreter that it is needed for.

    Args:
        build: the build.
        python: the interpreter that its package is used with, if the package is for several. What
            a package requires at run time has to be there for this one. What a build needs is used
            while it runs, with the build's own interpreter or the default.
    """
    own = build.python or DEFAULT_PYTHON
    yield from ((name, own) for name in build.needs)
    yield from ((name, build.python or python) for name in build.runs)
    if build.wheel is not None and build.needs:
        # The tests of the package need its requirements as well.
        yield from ((name, own) for name in build.runs)


def closure(by_id: Mapping[str, Build], wanted: Iterable[tuple[str, str]]) -> set[str]:
    """The ids of ``wanted`` builds and of everything that they need, each for its interpreter."""
    stack, seen = list(wanted), set[tuple[str, str]]()
    while stack:
        name, python = stack.pop()
        build = by_id[name]
        if (name, python) not in seen:
            seen.add((name, python))
            stack.extend(
                (other, version)
                for other, version in required(build, python)
                if other in build.needs or by_id[other].python in ("", version)
            )
    return {name for name, _ in seen}


def select(builds: Iterable[Build], only: Iterable[str] | None) -> list[Build]:
    """Select the builds named in ``only`` and everything they need, in build order.

    Packages for several interpreters may require packages for one. Those for the interpreters of
    the named builds are selected, or those for the default interpreter if there are none.

    Args:
        builds: all builds, in build order.
        only: ids; ``None`` for all builds that are not made on request only.

    Raises:
        ConfigurationError: an id is unknown.
    """
    every = list(builds)
    names = [build.id for build in every if not build.on_request] if only is None else list(only)
    by_id = {build.id: build for build in every}
    for name in names:
        if name not in by_id:
            raise ConfigurationError(
                f"no build of the toolchain is called {name!r}",
                expected="one of " + ", ".join(sorted(by_id)),
            )
    pythons = {by_id[name].python for name in names} - {""} or {DEFAULT_PYTHON}
    wanted = closure(by_id, [(name, python) for name in names for python in pythons])
    return [build for build in every if build.id in wanted]
