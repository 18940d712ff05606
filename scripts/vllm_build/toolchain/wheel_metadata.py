# SPDX-License-Identifier: Apache-2.0
"""What a wheel says of itself, in conda's terms: its requirements on the channel's interpreters, its programs, modules and license."""

from __future__ import annotations

import configparser
import email
import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from vllm_build.util.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from email.message import Message
    from pathlib import Path

#: What markers see. The channel is for Linux on x86-64 and has CPython only; kernels and the
#: machine's release decide nothing.
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
#: Classifiers that mean one license.
_CLASSIFIERS = {
    f"License :: OSI Approved :: {name}": expression
    for name, expression in {
        "Apache Software License": "Apache-2.0",
        "ISC License (ISCL)": "ISC",
        "MIT License": "MIT",
        "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
        "Python Software Foundation License": "PSF-2.0",
        "The Unlicense (Unlicense)": "Unlicense",
    }.items()
}
_PAGE = re.compile(r"https?://[^\s/]+(/\S*)?$")


@dataclass(frozen=True)
class Needed:
    """What a wheel requires of one distribution on at least one interpreter of the channel.

    Attributes:
        name: the distribution, as the Python standards spell it.
        specifier: what its version must satisfy; of several requirements all.
        extras: the extras that must come with it.
    """

    name: str
    specifier: SpecifierSet
    extras: frozenset[str]


@dataclass(frozen=True)
class Metadata:
    """The parts of a wheel that its package repeats.

    Attributes:
        name, version: of the distribution.
        requires: its requirements, with markers.
        requires_python: versions of Python that it is for; empty for any.
        license: an SPDX expression, or empty where it names none.
        homepage: the address of a page, or empty.
        summary: one line.
        programs: console and GUI scripts as ``name = module:function``.
        modules: what can be imported, the topmost of each branch.
        has_license: it holds a license text.
        pure: it is for any platform.
    """

    name: str
    version: str
    requires: tuple[str, ...]
    requires_python: str
    license: str
    homepage: str
    summary: str
    programs: tuple[str, ...]
    modules: tuple[str, ...]
    has_license: bool
    pure: bool


def relevant(requires: Iterable[str], extras: Iterable[str]) -> tuple[str, ...]:
    """The requirements that do not depend on an extra, each once and in one spelling, sorted; with ``extras`` the others as well.

    Raises:
        IntegrityError: one of them is malformed.
    """
    with_extras, found = bool(tuple(extras)), set()
    for text in requires:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise IntegrityError(
                f"{text!r} in a wheel's metadata is no requirement: {error}",
                expected="a requirement",
            ) from error
        if with_extras or requirement.marker is None or not _EXTRA.search(str(requirement.marker)):
            found.add(str(requirement))
    return tuple(sorted(found))


def environment(python: str, extra: str) -> dict[str, str]:
    """What markers see on one interpreter of the channel, such as ``3.11.2``."""
    version = Version(python)
    return {
        **_PLATFORM,
        "implementation_version": python,
        "python_full_version": python,
        "python_version": f"{version.major}.{version.minor}",
        "extra": extra,
    }


def usable_pythons(requires_python: str, pythons: Sequence[str]) -> tuple[str, ...]:
    """Those of the channel's interpreters that a wheel is for, oldest first."""
    allowed = SpecifierSet(requires_python)
    return tuple(
        python
        for python in sorted(pythons, key=Version)
        if allowed.contains(python, prereleases=True)
    )


def needed(requires: Iterable[str], extras: Iterable[str], pythons: Sequence[str]) -> list[Needed]:
    """What is required on at least one of ``pythons``, with or without one of the ``extras``.

    One package serves all interpreters, so it requires all that any of them needs. Different
    requirements of one distribution add up.
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
    """A set of specifiers as conda's solver reads them; empty for any version.

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
    """What a package requires of ``python``: what its wheel does, and at least the oldest interpreter that its markers saw."""
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


def _programs(text: str) -> tuple[str, ...]:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # names are case sensitive
    parser.read_string(text)
    sections = [
        parser[name] for name in ("console_scripts", "gui_scripts") if parser.has_section(name)
    ]
    # The extras behind an object reference mean nothing to an installed program.
    return tuple(
        f"{name} = {target.partition('[')[0].strip()}"
        for section in sections
        for name, target in section.items()
    )


def modules(names: Iterable[str]) -> tuple[str, ...]:
    """What can be imported out of files in site-packages: the topmost package of each branch, and modules that are in none."""
    files = {
        name
        for name in names
        if name.endswith(".py") and not name.partition("/")[0].endswith((".dist-info", ".data"))
    }
    folders = {name.rpartition("/")[0] for name in files if name.endswith("/__init__.py")}
    packages = {
        folder for folder in folders if not any(folder.startswith(f"{other}/") for other in folders)
    }
    packages |= {name.removesuffix(".py") for name in files if "/" not in name}
    return tuple(
        sorted(
            p.replace("/", ".")
            for p in packages
            if all(part.isidentifier() for part in p.split("/"))
        )
    )


def _homepage(message: Message) -> str:
    urls = dict(entry.partition(",")[::2] for entry in message.get_all("Project-URL", []))
    by_label = {label.strip().lower(): url.strip() for label, url in urls.items()}
    candidates = [
        message.get("Home-page", ""),
        *(by_label.get(label, "") for label in ("homepage", "home", "source", "repository")),
    ]
    # What is no address of a page would not be one in the package either.
    return next(
        (str(url) for url in (*candidates, *by_label.values()) if _PAGE.match(str(url))), ""
    )


def spdx(text: str) -> str:
    """``text`` as an SPDX license expression; empty where it is none."""
    # packaging has it since 24.2, and builds that make no channel take 24.0.
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression  # noqa: PLC0415

    try:
        return canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        return ""


def license_of(expression: str, text: str, classifiers: Iterable[str]) -> str:
    """The license that a wheel's metadata names, as an SPDX expression; empty where it names none, or none that is certain.

    Args:
        expression: its License-Expression.
        text: its License, an expression by chance.
        classifiers: its classifiers; one that may mean several licenses, such as "BSD License",
            means nothing.
    """
    by_classifier = {
        _CLASSIFIERS.get(c, "")
        for c in classifiers
        if c.startswith("License ::") and c != "License :: OSI Approved"
    }
    return (
        spdx(expression) or spdx(text) or (by_classifier.pop() if len(by_classifier) == 1 else "")
    )


def read(wheel: Path) -> Metadata:
    """Read a wheel's metadata.

    Raises:
        IntegrityError: it is no wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            (folder,) = {
                name.partition("/")[0]
                for name in names
                if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)
            }
            message = email.message_from_string(archive.read(f"{folder}/METADATA").decode())
            archive.getinfo(f"{folder}/WHEEL")
            scripts = (
                archive.read(f"{folder}/entry_points.txt").decode()
                if f"{folder}/entry_points.txt" in names
                else ""
            )
        parsed = SpecifierSet(str(message.get("Requires-Python", "")))
        programs = _programs(scripts)
    except (
        OSError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
        InvalidSpecifier,
        configparser.Error,
    ) as error:
        raise IntegrityError(
            f"{wheel.name} is no wheel: {error}", expected="a wheel with METADATA and WHEEL"
        ) from error
    texts = [name.removeprefix(f"{folder}/") for name in names if name.startswith(f"{folder}/")]
    return Metadata(
        name=str(message["Name"]),
        version=str(message["Version"]),
        requires=tuple(message.get_all("Requires-Dist", [])),
        requires_python=str(parsed),
        license=license_of(
            str(message.get("License-Expression", "")),
            str(message.get("License", "")),
            map(str, message.get_all("Classifier", [])),
        ),
        homepage=_homepage(message),
        summary=str(message.get("Summary", "")),
        programs=programs,
        modules=modules(names),
        has_license=any(
            name.startswith("licenses/") or name.upper().startswith(("LICEN", "COPYING", "NOTICE"))
            for name in texts
        ),
        pure=wheel.name.endswith("-none-any.whl"),
    )
