# SPDX-License-Identifier: Apache-2.0
"""Reads the metadata of a wheel: its requirements, programs, modules and license."""

from __future__ import annotations

import configparser
import email
import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from vllm_build.util.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from email.message import Message
    from pathlib import Path

#: Classifiers that identify exactly one license.
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
class Metadata:
    """The metadata of a wheel that its package repeats.

    Attributes:
        name, version: of the distribution.
        requires: its requirements, with markers.
        requires_python: the supported versions of Python; empty for all.
        license: an SPDX expression; empty if the wheel names none.
        homepage: the address of a page, or empty.
        summary: one line.
        programs: console and GUI scripts as ``name = module:function``.
        modules: the topmost packages and modules that can be imported.
        has_license: whether the wheel contains a license text.
        pure: whether the wheel is for any platform.
        series: the one interpreter that the wheel is for, such as ``3.13``; empty if it is for
            several.
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
    series: str = ""


def _programs(text: str) -> tuple[str, ...]:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # names are case sensitive
    parser.read_string(text)
    sections = [
        parser[name] for name in ("console_scripts", "gui_scripts") if parser.has_section(name)
    ]
    # Extras after an object reference have no effect on an installed program.
    return tuple(
        f"{name} = {target.partition('[')[0].strip()}"
        for section in sections
        for name, target in section.items()
    )


def modules(names: Iterable[str]) -> tuple[str, ...]:
    """Find the importable names among files in site-packages.

    These are the topmost package of each branch and the modules outside of packages.
    """
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


def _series(filename: str) -> str:
    """Find the one interpreter of a wheel in its file name."""
    found = re.search(r"-cp3([0-9]+)-cp3\1t?-[^-]+$", filename)
    return f"3.{found[1]}" if found else ""


def _homepage(message: Message) -> str:
    urls = dict(entry.partition(",")[::2] for entry in message.get_all("Project-URL", []))
    by_label = {label.strip().lower(): url.strip() for label, url in urls.items()}
    candidates = [
        message.get("Home-page", ""),
        *(by_label.get(label, "") for label in ("homepage", "home", "source", "repository")),
    ]
    # Skips entries that are not addresses of pages.
    return next(
        (str(url) for url in (*candidates, *by_label.values()) if _PAGE.match(str(url))), ""
    )


def spdx(text: str) -> str:
    """Return ``text`` as a canonical SPDX license expression; empty if it is not one."""
    # Imported here because packaging.licenses needs packaging 24.2. Builds that make no channel
    # work with 24.0.
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression  # noqa: PLC0415

    try:
        return canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        return ""


def license_of(expression: str, text: str, classifiers: Iterable[str]) -> str:
    """Return the license that a wheel's metadata names, as an SPDX expression.

    It is empty if the metadata names none, or none that is unambiguous.

    Args:
        expression: the field License-Expression.
        text: the field License, which may happen to be an SPDX expression.
        classifiers: the classifiers. One that covers several licenses, such as "BSD License", is
            ignored.
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
        IntegrityError: it is not a wheel.
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
            f"{wheel.name} is not a wheel: {error}", expected="a wheel with METADATA and WHEEL"
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
        series=_series(wheel.name),
    )
