# SPDX-License-Identifier: Apache-2.0
"""Reads ``requirements/engine.toml``: what the package with the engine requires, and what not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from vllm_build.util.errors import IntegrityError
from vllm_build.util.record_reader import require_document

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vllm_build.util.record_reader import Record

TABLE = "requirements/engine.toml"
#: The group of packages that are in upstream's list only because others of it need them.
INDIRECT = "indirect"
#: The group of torch and of what has to fit its release.
TORCH = "torch"
#: Groups that make no extra of a wheel and no constraint of the conda package.
SILENT = (INDIRECT, TORCH)
#: The file of upstream's that every device's own file includes, and the devices with one.
COMMON = "common"
DEVICES = ("cpu", "cuda", "rocm")
_WORDS = {
    "record": "not a table",
    "missing": "{key!r} is missing",
    "text": "{key} = {value!r} is not a string",
}


@dataclass(frozen=True)
class LeftOut:
    """A requirement of upstream's that ours does not have: its specifier, and its group."""

    specifier: str
    group: str


@dataclass(frozen=True)
class EngineRequirements:
    """The table.

    Attributes:
        upstream: distribution → specifier, as upstream's files have it.
        changed: distribution → our specifier instead.
        also: distribution → specifier of what upstream's files do not list.
        left_out: distribution → what upstream's files list and ours do not.
        groups: group → why its requirements are left out.
        conda: distribution → conda package, where the name differs.
        devices: device → distribution → what upstream's file for this device lists in addition.
    """

    upstream: Mapping[str, str]
    changed: Mapping[str, str]
    also: Mapping[str, str]
    left_out: Mapping[str, LeftOut]
    groups: Mapping[str, str]
    conda: Mapping[str, str]
    devices: Mapping[str, Mapping[str, LeftOut]]

    @property
    def specifiers(self) -> dict[str, str]:
        """Distribution → our specifier, sorted by name."""
        return dict(sorted({**self.upstream, **self.changed, **self.also}.items()))

    def for_pip(self) -> list[str]:
        """The requirements of a wheel."""
        return [f"{name}{specifier}" for name, specifier in self.specifiers.items()]

    def extras(self) -> dict[str, list[str]]:
        """Group → the requirements that an installation with this extra has in addition."""
        return {
            group: [
                f"{name}{entry.specifier}"
                for name, entry in sorted(self.left_out.items())
                if entry.group == group
            ]
            for group in sorted({entry.group for entry in self.left_out.values()})
            if group not in SILENT
        }

    def conda_name(self, distribution: str) -> str:
        """The conda package with a distribution."""
        return self.conda.get(distribution, distribution)

    def for_conda(self) -> list[str]:
        """The run requirements of the conda package, without torch and the kernels."""
        return [
            f"{self.conda_name(name)} {specifier}".strip()
            for name, specifier in self.specifiers.items()
        ]

    def constraints(self) -> list[str]:
        """Constraints of the conda package: the versions of what it does not install itself.

        One package serves every device, so a version that devices disagree about is no constraint.
        """
        entries = [
            (name, entry)
            for table in (self.left_out, *self.devices.values())
            for name, entry in table.items()
            if entry.specifier and entry.group not in SILENT
        ]
        asked: dict[str, set[str]] = {}
        for name, entry in entries:
            asked.setdefault(name, set()).add(entry.specifier)
        return [
            f"{self.conda_name(name)} {min(specifiers)}"
            for name, specifiers in sorted(asked.items())
            if len(specifiers) == 1
        ]

    def of_file(self, file: str) -> dict[str, str]:
        """Canonical name → sorted specifier, as upstream's file ``file`` must have it.

        Args:
            file: :data:`COMMON`, or a device.
        """
        listed: Mapping[str, LeftOut] = (
            self.left_out if file == COMMON else self.devices.get(file, {})
        )
        found = {name: entry.specifier for name, entry in listed.items()}
        return {
            canonicalize_name(name): str(SpecifierSet(specifier))
            for name, specifier in {
                **(self.upstream if file == COMMON else {}),
                **found,
            }.items()
        }


def _checked(record: Record, key: str, specifier: str) -> str:
    try:
        # Not as one text: "1" after a name would be a part of the name.
        Requirement(key)
        SpecifierSet(specifier)
    except (InvalidRequirement, InvalidSpecifier):
        record.fail(key, f"{key} = {specifier!r} is no requirement", "a specifier such as >=1.2")
    return specifier


def _tables(record: Record, key: str, keys: set[str]) -> dict[str, dict[str, str]]:
    table: Any = record.data.get(key, {})
    if not isinstance(table, dict):
        record.fail(key, f"{key} = {table!r} is not valid", f"a table [{key}]")
    for name, entry in table.items():
        if (
            not isinstance(entry, dict)
            or set(entry) != keys
            or not all(isinstance(value, str) for value in entry.values())
        ):
            record.fail(
                key, f"{name} in [{key}] is {entry!r}", f"a table with {', '.join(sorted(keys))}"
            )
        _checked(record, name, entry["specifier"])
    return table


def _devices(record: Record) -> dict[str, dict[str, dict[str, str]]]:
    table = record.table("device")
    table.allow(*DEVICES)
    return {device: _tables(table, device, {"specifier", "group"}) for device in table.data}


def _left_out(table: Mapping[str, Mapping[str, str]]) -> dict[str, LeftOut]:
    return {name: LeftOut(entry["specifier"], entry["group"]) for name, entry in table.items()}


def read(root: Path) -> EngineRequirements:
    """Read the table of the tree.

    Raises:
        ConfigurationError: it is missing or malformed, or names a distribution twice.
    """
    document = require_document(
        root / TABLE, "the engine's requirements", remedy=f"correct {TABLE}", words=_WORDS
    )
    record = document.root
    record.allow("schema", "requires", "changed", "also", "left_out", "device", "groups", "conda")
    upstream = {
        name: _checked(record, name, value) for name, value in record.texts_by("requires").items()
    }
    changed = _tables(record, "changed", {"specifier", "reason"})
    also = _tables(record, "also", {"specifier", "reason"})
    left_out = _tables(record, "left_out", {"specifier", "group"})
    groups = record.texts_by("groups")
    devices = _devices(record)
    for key, table in (("left_out", left_out), *(("device", table) for table in devices.values())):
        for name, entry in table.items():
            if entry["group"] not in groups:
                record.fail(
                    key,
                    f"{name} is in the unknown group {entry['group']!r}",
                    "one of " + ", ".join(sorted(groups)),
                )
    for name in changed:
        if name not in upstream:
            record.fail("changed", f"{name} is not in [requires]", "a requirement to change")
    for listed in ((*upstream, *also, *left_out), *devices.values()):
        names = [canonicalize_name(name) for name in listed]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            record.fail(None, f"{', '.join(twice)} are there twice", "each distribution once")
    return EngineRequirements(
        upstream,
        {name: entry["specifier"] for name, entry in changed.items()},
        {name: entry["specifier"] for name, entry in also.items()},
        _left_out(left_out),
        groups,
        record.texts_by("conda"),
        {device: _left_out(table) for device, table in devices.items()},
    )


def _applies(requirement: Requirement) -> bool:
    """Whether a requirement applies to CPython 3.12 on Linux for x86-64."""
    return requirement.marker is None or requirement.marker.evaluate(
        {
            "platform_machine": "x86_64",
            "platform_system": "Linux",
            "sys_platform": "linux",
            "python_version": "3.12",
            "python_full_version": "3.12.0",
        }
    )


def _specifier(requirement: Requirement) -> SpecifierSet:
    """The specifier; of a wheel that is named by its address, the wheel's version."""
    name = (requirement.url or "").rpartition("/")[2].partition("#")[0]
    try:
        return SpecifierSet(f"=={parse_wheel_filename(unquote(name))[1]}")
    except InvalidWheelFilename:
        return requirement.specifier


def of_upstream(text: str, file: str = COMMON) -> dict[str, str]:
    """Canonical name → sorted specifier of upstream's file, as for CPython 3.12 on x86-64 Linux.

    Args:
        text: the content of a file of the engine's ``requirements``; options, such as ``-r``, are
            skipped.
        file: its name without suffix, for messages.

    Raises:
        IntegrityError: a line is no requirement.
    """
    found: dict[str, SpecifierSet] = {}
    for raw in text.splitlines():
        line = re.split(r"(?:^|\s)#", raw, maxsplit=1)[0].strip()
        if not line or line.startswith("-"):
            continue
        try:
            requirement = Requirement(line)
        except InvalidRequirement as error:
            raise IntegrityError(
                f"requirements/{file}.txt of the engine has the line {line!r}: {error}",
                expected="requirements, as pip reads them",
            ) from error
        if _applies(requirement):
            name = canonicalize_name(requirement.name)
            found[name] = found.get(name, SpecifierSet()) & _specifier(requirement)
    return {name: str(specifier) for name, specifier in found.items()}


def differences(
    table: EngineRequirements, upstream: Mapping[str, str], file: str = COMMON
) -> list[str]:
    """How upstream's requirements differ from those that the table knows, one line each.

    Args:
        table: ours.
        upstream: result of :func:`of_upstream`.
        file: the name of upstream's file without suffix.
    """
    mine = table.of_file(file)
    return [
        f"{name}: upstream's {file}.txt has {_shown(upstream.get(name))}, {TABLE} has "
        f"{_shown(mine.get(name))}"
        for name in sorted({*mine, *upstream})
        if mine.get(name) != upstream.get(name)
    ]


def _shown(specifier: str | None) -> str:
    return "no such requirement" if specifier is None else specifier or "any version"
