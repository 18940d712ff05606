# SPDX-License-Identifier: Apache-2.0
"""What the channel is made from, in build order: every ``toolchain/recipes/*/sources.toml``, and ``toolchain/wheels.toml``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from packaging.requirements import InvalidRequirement, Requirement

from vllm_build.toolchain import pypi, toolchain_lock, wheel_table
from vllm_build.toolchain.debian_suites import SPELLINGS
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.record_reader import require_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from vllm_build.util.record_reader import Record

#: The interpreter whose wheels are taken when a source names none: the result must not depend on
#: the interpreter that runs the build.
DEFAULT_PYTHON = "3.11"
_ID = re.compile(r"[a-z0-9][a-z0-9._-]*")
_DEBIAN_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_ABI = re.compile(r"cp3[0-9]{1,2}t?|abi3")
_PYTHON = re.compile(r"3\.[0-9]{1,2}")
_WORDS = {
    "records": "{what} has no {kind!r} tables",
    "missing": "{what} needs the text {key!r}",
    "text": "{what} needs the text {key!r}",
    "pattern": "{key} = {value!r} in {what} is malformed",
    "list": "{key!r} in {what} is not a list of texts",
    "twice": "{key!r} in {what} names something twice",
    "flag": "{key!r} in {what} is neither true nor false",
    "table": "{key!r} in {what} is not a table of texts",
}


@dataclass(frozen=True)
class AptSource:
    """Debian binary packages, exactly the named ones: no dependency closure."""

    suite: str
    packages: tuple[str, ...]


@dataclass(frozen=True)
class AptSourcePackage:
    """The files of one Debian source package: its ``.dsc``, the upstream tarballs and Debian's own part."""

    suite: str
    package: str


@dataclass(frozen=True)
class PypiSource:
    """One wheel that pip finds.

    Attributes:
        requirement: an exact requirement such as ``numpy==2.4.6``; ``torch===2.13.0`` where
            ``2.13.0+local``, which ``==`` admits, is another file.
        python: version of the interpreter that the wheel must fit, such as ``3.13``.
        abi: ABI tag where the version alone does not say it, such as ``cp313t``; ``none`` for a
            wheel without compiled code.
    """

    requirement: str
    python: str = DEFAULT_PYTHON
    abi: str | None = None


Source: TypeAlias = AptSource | AptSourcePackage | PypiSource


@dataclass(frozen=True)
class Build:
    """One run of rattler-build for the channel: a recipe, its variant, its sources and what must be in the channel before.

    A package without content, such as a metapackage, has no source and names its ``version``
    itself.

    Attributes:
        packages: what a recipe with several outputs makes; empty for one package, called like the
            build or like its folder.
        on_request: left out unless it is asked for or something that is asked for needs it: large,
            and of use to few.
        wheel: the line of ``wheels.toml`` that says it; its recipe is written when it is built.
        run: what a package of such a line requires.
    """

    id: str
    folder: Path
    sources: tuple[Source, ...]
    needs: tuple[str, ...] = ()
    variant: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    packages: tuple[str, ...] = ()
    on_request: bool = False
    wheel: wheel_table.Wheel | None = None
    run: tuple[str, ...] = ()

    @property
    def recipe(self) -> Path:
        """The recipe file; of a wheel of the table the template."""
        return (self.folder if self.wheel is None else self.folder.parent) / "recipe.yaml"

    @property
    def where(self) -> str:
        """The file that says it, for messages."""
        return f"{self.folder}/sources.toml" if self.wheel is None else self.wheel.where

    @property
    def makes(self) -> tuple[str, ...]:
        """Names of the packages that come out; builds of one folder make the same names, for other variants."""
        return self.packages or (self.folder.name,)


def _suite(record: Record) -> str:
    return record.text("suite", choices=SPELLINGS)


def _exact(record: Record) -> str:
    """The requirement of one version, without extras and markers."""
    text = record.text("requirement")
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        record.fail(
            "requirement", f"{text!r} in {record.what} is no requirement: {error}", "name==version"
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
        ConfigurationError: not TOML, an unknown or missing key, a malformed value, or no recipe
            beside it. The message names the line.
    """
    document = require_document(path, "the sources of a recipe", words=_WORDS)
    document.root.allow("build")
    builds = [
        _build(record, path.parent)
        for record in document.root.records("build", "a [[build]] table")
    ]
    if not (path.parent / "recipe.yaml").is_file():
        raise ConfigurationError(
            f"{path}: there is no recipe.yaml beside it", expected="a recipe for these sources"
        )
    return builds


def _by_id(builds: Iterable[Build]) -> dict[str, Build]:
    by_id: dict[str, Build] = {}
    for build in builds:
        if build.id in by_id:
            raise ConfigurationError(
                f"{build.where}: build {build.id!r} also exists in {by_id[build.id].where}"
            )
        by_id[build.id] = build
    for build in by_id.values():
        for need in build.needs:
            if need not in by_id:
                raise ConfigurationError(
                    f"{build.where}: build {build.id!r} needs {need!r}, which no recipe makes",
                    expected="one of " + ", ".join(sorted(by_id)),
                )
    return by_id


def ordered(builds: Iterable[Build]) -> list[Build]:
    """``builds`` so that each comes after all that it needs, otherwise by id.

    Raises:
        ConfigurationError: two builds share an id, one needs something unknown, or they need each
            other in a circle.
    """
    by_id = _by_id(builds)
    result: list[Build] = []
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            circle = " -> ".join((*trail[trail.index(name) :], name))
            raise ConfigurationError(
                f"{by_id[name].where}: builds need each other in a circle: {circle}"
            )
        if name not in done:
            for need in sorted(by_id[name].needs):
                visit(need, (*trail, name))
            done.add(name)
            result.append(by_id[name])

    for name in sorted(by_id):
        visit(name, ())
    return result


def recipes_folder(root: Path) -> Path:
    """Where the recipes of the channel lie in the source tree ``root``."""
    return root / "toolchain" / "recipes"


def _of_wheels(root: Path, recipes: Iterable[Build], lock: toolchain_lock.Lock) -> list[Build]:
    """The builds of ``wheels.toml``; ``recipes`` are all others."""
    table, makers = wheel_table.read(root), wheel_table.makers_of(recipes, lock)
    pythons = sorted({maker.version for maker in makers.get("python", ()) if maker.version})
    required = wheel_table.require(table, lock, makers, pythons or [DEFAULT_PYTHON])
    return [
        Build(
            id=wheel.name,
            folder=root / wheel_table.FOLDER / wheel.name,
            sources=(PypiSource(wheel.requirement, abi=pypi.PURE),),
            needs=required[wheel.name].needs,
            wheel=wheel,
            run=required[wheel.name].run,
        )
        for wheel in table.wheels
    ]


def load(root: Path, lock: toolchain_lock.Lock | None = None) -> list[Build]:
    """All builds of the source tree ``root``, in build order.

    Args:
        root: the source tree.
        lock: what its lock is to be; None: what it is.

    Raises:
        ConfigurationError: as ``parse_file``, ``wheels.read``, ``wheels.require`` and ``ordered``,
            or there is no recipe at all.
    """
    files = sorted(recipes_folder(root).glob("*/sources.toml"))
    builds = [build for path in files for build in parse_file(path)]
    builds += _of_wheels(root, builds, toolchain_lock.read(root) if lock is None else lock)
    if not builds:
        raise ConfigurationError(
            f"{recipes_folder(root)}: no */sources.toml there",
            expected="the recipes of the toolchain channel",
        )
    return ordered(builds)


def select(builds: Iterable[Build], only: Iterable[str] | None) -> list[Build]:
    """The builds named in ``only`` with everything they need, in order; all that are not made on request only for ``None``.

    Raises:
        ConfigurationError: a name is unknown.
    """
    every = list(builds)
    if only is None:
        only = [build.id for build in every if not build.on_request]
    by_id = {build.id: build for build in every}
    wanted: set[str] = set()
    stack = list(only)
    while stack:
        name = stack.pop()
        if name not in by_id:
            raise ConfigurationError(
                f"no build of the toolchain is called {name!r}",
                expected="one of " + ", ".join(sorted(by_id)),
            )
        if name not in wanted:
            wanted.add(name)
            stack.extend(by_id[name].needs)
    return [build for build in every if build.id in wanted]
