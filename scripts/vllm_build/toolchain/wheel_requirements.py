# SPDX-License-Identifier: Apache-2.0
"""Translates the requirements of wheels for the channel's interpreters and for conda's solver."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from vllm_build.toolchain import wheel_table
from vllm_build.util.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vllm_build.toolchain.toolchain_lock import LockedFile

#: Values of marker variables. The channel is for Linux on x86-64 and has CPython only. The release
#: and version of the machine's Linux kernel must not affect the result, so they are empty.
_PLATFORM = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_release": "",
    "platform_system": "Linux",
    "platform_version": "",
    "sys_platform": "linux",
}
_EXTRA = re.compile(r"\bextra\b")
_GLIBC = re.compile(r"manylinux_2_([0-9]+)_")
#: glibc 2 of the older spellings of platform tags.
_OLD_GLIBC = {"manylinux1": 5, "manylinux2010": 12, "manylinux2014": 17}
#: The package that allows interpreters with a GIL. Others load no library of the stable ABI.
GIL = "python-gil"


@dataclass(frozen=True)
class Needed:
    """A wheel's requirement on one distribution, on at least one interpreter of the channel.

    Attributes:
        name: the normalized name of the distribution.
        specifier: the versions that satisfy all requirements on the distribution.
        extras: the required extras.
    """

    name: str
    specifier: SpecifierSet
    extras: frozenset[str]


def relevant(requires: Iterable[str], extras: Iterable[str]) -> tuple[str, ...]:
    """Normalize a wheel's requirements: distinct, in one spelling, sorted.

    Requirements that depend on an extra are kept only if ``extras`` names an extra.

    Raises:
        IntegrityError: a requirement is malformed.
    """
    with_extras, found = bool(tuple(extras)), set()
    for text in requires:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise IntegrityError(
                f"{text!r} in a wheel's metadata is not a requirement: {error}",
                expected="a requirement such as name>=1",
            ) from error
        if with_extras or requirement.marker is None or not _EXTRA.search(str(requirement.marker)):
            found.add(str(requirement))
    return tuple(sorted(found))


def environment(python: str, extra: str) -> dict[str, str]:
    """Marker variables on one interpreter of the channel, such as ``3.11.2``."""
    version = Version(python)
    return {
        **_PLATFORM,
        "implementation_version": python,
        "python_full_version": python,
        "python_version": f"{version.major}.{version.minor}",
        "extra": extra,
    }


def usable_pythons(requires_python: str, pythons: Sequence[str]) -> tuple[str, ...]:
    """The channel's interpreters that a wheel supports, oldest first."""
    allowed = SpecifierSet(requires_python)
    return tuple(
        python
        for python in sorted(pythons, key=Version)
        if allowed.contains(python, prereleases=True)
    )


def needed(requires: Iterable[str], extras: Iterable[str], pythons: Sequence[str]) -> list[Needed]:
    """Collect what a wheel requires on at least one of ``pythons``, including its ``extras``.

    One package serves all interpreters, so it requires what any of them needs. Several requirements
    on one distribution are combined.
    """
    found: dict[str, Needed] = {}
    for requirement in map(Requirement, requires):
        marker = requirement.marker
        if marker is not None and not any(
            marker.evaluate(environment(p, e)) for p in pythons for e in ("", *extras)
        ):
            continue
        name = canonicalize_name(requirement.name)
        before = found.get(name, Needed(name, SpecifierSet(), frozenset()))
        found[name] = Needed(
            name, before.specifier & requirement.specifier, before.extras | requirement.extras
        )
    return [found[name] for name in sorted(found)]


def conda_versions(specifier: SpecifierSet) -> str:
    """Translate specifiers for conda's solver; empty means any version.

    Examples:
        ``<2,>=1.6`` -> ``>=1.6,<2``; ``~=1.4.2`` -> ``>=1.4.2,1.4.*``; ``==3.*`` -> ``3.*``.
    """
    parts = []
    for each in sorted(
        specifier,
        key=lambda one: (
            (">=", ">", "~=", "==", "===", "!=", "<=", "<").index(one.operator),
            one.version,
        ),
    ):
        version = each.version.partition("+")[0]
        if each.operator == "~=":
            parts += [
                f">={version}",
                ".".join(Version(version).base_version.split(".")[:-1]) + ".*",
            ]
        elif each.operator in ("==", "===") and version.endswith(".*"):
            parts.append(version)
        else:
            parts.append(f"{'==' if each.operator == '===' else each.operator}{version}")
    return ",".join(dict.fromkeys(parts))


def conda_python(requires_python: str, pythons: Sequence[str]) -> str:
    """Return a package's requirement on ``python``.

    It combines the wheel's ``Requires-Python`` with the oldest interpreter for which the markers
    were evaluated.
    """
    oldest = Version(usable_pythons(requires_python, pythons)[0])
    rest = SpecifierSet(
        ",".join(
            str(s) for s in SpecifierSet(requires_python) if s.operator not in (">=", ">", "~=")
        )
    )
    upper = [
        f"{s.version.rpartition('.')[0]}.*"
        for s in SpecifierSet(requires_python)
        if s.operator == "~=" and s.version.count(".") > 1
    ]
    return ",".join(
        [
            f">={oldest.major}.{oldest.minor}",
            *upper,
            *([versions] if (versions := conda_versions(rest)) else []),
        ]
    )


def glibc(filename: str) -> str:
    """Return the oldest glibc that one of a wheel's platform tags names; empty without such a tag.

    Examples:
        ``x-1-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl`` -> ``2.17``.
    """
    minors = []
    for platform in filename.removesuffix(".whl").rpartition("-")[2].split("."):
        if found := _GLIBC.match(platform):
            minors.append(int(found[1]))
        elif (name := platform.partition("_")[0]) in _OLD_GLIBC:
            minors.append(_OLD_GLIBC[name])
    return f"2.{min(minors)}" if minors else ""


def conda_interpreter(
    target: wheel_table.Target, file: LockedFile, usable: Sequence[str]
) -> tuple[str, ...]:
    """Return a package's requirements on the interpreter and on the C library.

    Args:
        target: the build.
        file: its wheel.
        usable: the channel's interpreters that the wheel supports, oldest first.
    """
    libc = (f"__glibc >={version}",) if (version := glibc(file.filename)) else ()
    if target.series:
        tag = "cp" + target.series.replace(".", "")
        return (f"python {target.series}.*", f"python_abi {target.series}.* *_{tag}", *libc)
    python = f"python {conda_python(file.requires_python, usable)}"
    return (python, GIL, *libc) if target.wheel.kind == wheel_table.ABI3 else (python,)
