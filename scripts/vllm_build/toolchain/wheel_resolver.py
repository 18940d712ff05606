# SPDX-License-Identifier: Apache-2.0
"""Finds what the packages of ``toolchain/wheels.toml`` need from the channel.

The lock holds the requirements of the wheels (``--update`` writes them), so this works without a
network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from vllm_build.toolchain import toolchain_lock, wheel_requirements, wheel_table
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vllm_build.toolchain.toolchain_builds import Build
    from vllm_build.toolchain.toolchain_lock import Lock, LockedFile
    from vllm_build.toolchain.wheel_table import Target, Wheel


@dataclass(frozen=True)
class Maker:
    """A build of the channel that makes a package.

    Attributes:
        build: its id.
        version: the locked version; empty if there is none.
        extras: the extras whose requirements the package has as well.
        python: the interpreter that the package is for, such as ``3.13t``; empty for all.
    """

    build: str
    version: str = ""
    extras: tuple[str, ...] = ()
    python: str = ""


@dataclass(frozen=True)
class Required:
    """The needs of a package.

    Attributes:
        runs: the builds that make the packages that it requires.
        run: its run requirements as conda's solver reads them.
    """

    runs: tuple[str, ...]
    run: tuple[str, ...]


def makers_of(recipes: Iterable[Build], lock: Lock) -> dict[str, list[Maker]]:
    """Map each package to the builds that make it.

    Builds for one release of a toolkit are left out.

    Args:
        recipes: the builds that have a recipe, in contrast to lines of the table.
        lock: of the same tree.
    """
    found: dict[str, list[Maker]] = {}
    for build in recipes:
        files = lock.files.get(build.id, ())
        for package in () if "cuda_release" in build.variant else build.makes:
            version = files[0].upstream_version if files else build.version
            found.setdefault(package, []).append(
                Maker(build.id, version, python=build.variant.get("python_version", ""))
            )
    return found


class _Resolver:
    """Finds the builds that satisfy the requirements of the table's wheels."""

    def __init__(
        self,
        table: wheel_table.Table,
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
            made = []
            for target in table.targets(wheel):
                file = wheel_table.locked_wheel(target, lock)
                version = file.version if file else wheel.version
                made.append(Maker(target.id, version, wheel.extras, target.series))
            self._made[wheel.distribution] = (wheel.name, made)
        for name, package in table.names.items():
            if package not in makers:
                raise ConfigurationError(
                    f"{wheel_table.TABLE}: [names] maps {name} to {package}, which no recipe makes",
                    expected="the name of a package that a recipe makes",
                )
            self._made[name] = (package, makers[package])
        self.missing: list[str] = []

    def _check(
        self,
        need: wheel_requirements.Needed,
        makers: Sequence[Maker],
        wheel: Wheel,
        file: LockedFile,
    ) -> None:
        what = f"{wheel.where}: {file.name} {file.version} requires {need.name}{need.specifier}"
        extras = ",".join(sorted(need.extras.union(*(maker.extras for maker in makers))))
        for maker in makers:
            if maker.version and not need.specifier.contains(maker.version, prereleases=True):
                raise ConfigurationError(
                    f"{what}, but the channel has {maker.version} ({maker.build})",
                    expected=f"a version of {need.name} that satisfies it, or another version of "
                    f"{wheel.name}",
                    remedy=f"change one of the two versions, then {toolchain_lock.UPDATE_COMMAND}",
                )
            if absent := sorted(need.extras - set(maker.extras)):
                raise ConfigurationError(
                    f"{what} with the extra {absent[0]!r}",
                    expected=f'"{need.name}[{extras}]==…" in {wheel_table.TABLE}',
                    remedy=f"add the extra there, or list {need.name} in `without` of {wheel.name}",
                )

    def _pythons_of(self, target: Target) -> tuple[str, ...]:
        """The channel's interpreters that the package of ``target`` may be for."""
        if not target.series:
            return tuple(self._pythons)
        return tuple(
            python
            for python in self._pythons
            if Version(python).release[:2] == Version(target.series).release
        )

    def required(self, target: Target) -> Required:
        """The needs of one package; empty if its line is not locked yet."""
        wheel, file = target.wheel, wheel_table.locked_wheel(target, self._lock)
        if file is None:
            return Required((), ())
        pythons = self._pythons_of(target)
        usable = wheel_requirements.usable_pythons(file.requires_python, pythons)
        if not usable:
            raise ConfigurationError(
                f"{wheel.where}: {file.name} {file.version} is for Python {file.requires_python}",
                expected=f"a version for one of {', '.join(self._pythons)}, the interpreters of "
                "the channel",
                remedy="choose another version",
            )
        listed = [
            need
            for need in wheel_requirements.needed(file.requires, wheel.extras, usable)
            if need.name not in wheel.without
        ]
        named = {
            name: wheel_requirements.Needed(canonicalize_name(name), SpecifierSet(), frozenset())
            for name in wheel.more
        }
        runs: set[str] = set()
        run = list(wheel_requirements.conda_interpreter(target, file, usable))
        for need in (*listed, *named.values()):
            package, makers = self._made.get(need.name, ("", ()))
            makers = [m for m in makers if target.series in ("", m.python) or not m.python]
            if not makers:
                reason = (
                    f"{file.name} {file.version} requires"
                    if need in listed
                    else f"`more` of {wheel.name} names"
                )
                self.missing.append(
                    f"{wheel.where}: {reason} {need.name}{need.specifier}, which nothing in the "
                    "channel makes" + (f" for Python {target.series}" if package else "")
                )
                continue
            self._check(need, makers, wheel, file)
            runs.update(maker.build for maker in makers)
            run.append(f"{package} {wheel_requirements.conda_versions(need.specifier)}".strip())
        if target.series:
            runs.update(f"{name}-{target.series}" for name in ("python", "python_abi"))
        if wheel.kind == wheel_table.ABI3:
            runs.update(maker.build for maker in self._made[wheel_requirements.GIL][1])
        return Required(tuple(sorted(runs)), tuple(run))


def require(
    table: wheel_table.Table,
    lock: Lock,
    makers: Mapping[str, Sequence[Maker]],
    pythons: Sequence[str],
) -> dict[str, Required]:
    """Find the needs of every build of the table; empty for one whose line is not locked yet.

    Args:
        table: the table of wheels.
        lock: of the same tree.
        makers: the builds that make each package, from ``makers_of``.
        pythons: versions of the channel's interpreters.

    Raises:
        ConfigurationError: the channel lacks a requirement of a wheel or has an unsuitable version
            of it; a wheel supports none of the interpreters; no recipe makes a package of
            ``[names]``. The message names the line of the wheel.
    """
    resolver = _Resolver(table, lock, makers, pythons)
    found = {
        target.id: resolver.required(target)
        for wheel in table.wheels
        for target in table.targets(wheel)
    }
    if resolver.missing:
        raise ConfigurationError(
            "\n".join(resolver.missing),
            expected=f"a line of {wheel_table.TABLE} or a recipe for each; an entry of [names] if "
            "the recipe's package has another name",
            remedy=f"add them, then {toolchain_lock.UPDATE_COMMAND}; or list in `without` the "
            "distributions that the package does not need",
        )
    return found
