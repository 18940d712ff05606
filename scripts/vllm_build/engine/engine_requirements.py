# SPDX-License-Identifier: Apache-2.0
"""Reads ``requirements/engine.toml``: what the package with the engine requires, and what not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from vllm_build.util.record_reader import require_document

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vllm_build.util.record_reader import Record

TABLE = "requirements/engine.toml"
#: The group of packages that are in upstream's list only because others of it need them.
INDIRECT = "indirect"
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
    """

    upstream: Mapping[str, str]
    changed: Mapping[str, str]
    also: Mapping[str, str]
    left_out: Mapping[str, LeftOut]
    groups: Mapping[str, str]
    conda: Mapping[str, str]

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
            for group in sorted(self.groups)
            if group != INDIRECT
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
        """Constraints of the conda package: the versions of what it does not install itself."""
        return [
            f"{self.conda_name(name)} {entry.specifier}"
            for name, entry in sorted(self.left_out.items())
            if entry.specifier and entry.group != INDIRECT
        ]


def _checked(record: Record, key: str, specifier: str) -> str:
    try:
        Requirement(f"{key}{specifier}")
    except InvalidRequirement:
        record.fail(key, f"{key} = {specifier!r} is no requirement", "a specifier such as >=1.2")
    return specifier


def _tables(record: Record, key: str, keys: set[str]) -> dict[str, dict[str, str]]:
    table: dict[str, Any] = record.data.get(key, {})
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


def read(root: Path) -> EngineRequirements:
    """Read the table of the tree.

    Raises:
        ConfigurationError: it is missing or malformed, or names a distribution twice.
    """
    document = require_document(
        root / TABLE, "the engine's requirements", remedy=f"correct {TABLE}", words=_WORDS
    )
    record = document.root
    upstream = {
        name: _checked(record, name, value) for name, value in record.texts_by("requires").items()
    }
    changed = _tables(record, "changed", {"specifier", "reason"})
    also = _tables(record, "also", {"specifier", "reason"})
    left_out = _tables(record, "left_out", {"specifier", "group"})
    groups = record.texts_by("groups")
    for name, entry in left_out.items():
        if entry["group"] not in groups:
            record.fail(
                "left_out",
                f"{name} is in the unknown group {entry['group']!r}",
                "one of " + ", ".join(sorted(groups)),
            )
    for name in changed:
        if name not in upstream:
            record.fail("changed", f"{name} is not in [requires]", "a requirement to change")
    names = [canonicalize_name(name) for name in (*upstream, *also, *left_out)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        record.fail(None, f"{', '.join(twice)} are there twice", "each distribution once")
    return EngineRequirements(
        upstream,
        {name: entry["specifier"] for name, entry in changed.items()},
        {name: entry["specifier"] for name, entry in also.items()},
        {name: LeftOut(entry["specifier"], entry["group"]) for name, entry in left_out.items()},
        groups,
        record.texts_by("conda"),
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


def of_upstream(text: str) -> dict[str, str]:
    """Canonical name → sorted specifier of upstream's file, as for CPython 3.12 on x86-64 Linux.

    Args:
        text: the content of a file of the engine's ``requirements``; lines with ``-r`` are skipped.
    """
    found: dict[str, str] = {}
    for raw in text.splitlines():
        line = raw.partition(" #")[0].strip()
        if not line or line.startswith(("#", "-")):
            continue
        requirement = Requirement(line)
        if _applies(requirement):
            found[canonicalize_name(requirement.name)] = str(requirement.specifier)
    return found


def differences(table: EngineRequirements, upstream: Mapping[str, str]) -> list[str]:
    """How upstream's requirements differ from those that the table knows, one line each."""
    known = {
        **table.upstream,
        **{name: entry.specifier for name, entry in table.left_out.items()},
    }
    mine: dict[str, str] = {
        canonicalize_name(name): str(Requirement(f"{name}{specifier}").specifier)
        for name, specifier in known.items()
    }
    return [
        f"{name}: upstream has {_shown(upstream.get(name))}, {TABLE} has {_shown(mine.get(name))}"
        for name in sorted({*mine, *upstream})
        if mine.get(name) != upstream.get(name)
    ]


def _shown(specifier: str | None) -> str:
    return "no such requirement" if specifier is None else specifier or "any version"
