# SPDX-License-Identifier: Apache-2.0
"""The table of kernels, ``csrc/kernels.toml``: read, checked, and turned into typed records.

The table holds ``[[extension]]`` records (a shared library and the package output that carries it)
and ``[[kernel]]`` records (sources that are compiled together for some devices into one extension).
Every mistake in it is a ConfigurationError that names the file and the line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from packaging.version import Version

from vllm_build.architectures import gpu_targets
from vllm_build.kernels.table_shorthand import WrittenRecord, write_out
from vllm_build.util.record_reader import require_document

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vllm_build.kernels.table_shorthand import Written
    from vllm_build.util.record_reader import Document, Record

#: Where the table lies below the source root; sources in it are relative to this file's folder.
TABLE = "csrc/kernels.toml"
#: Devices that can have kernels. ``tpu`` and ``empty`` are devices too, and compile nothing by
#: definition.
KERNEL_DEVICES = ("cuda", "rocm", "cpu", "xpu")
#: Devices whose code is compiled for a list of architectures.
GPU_DEVICES = tuple(gpu_targets.TOOLKITS)
#: Bytes that the compiler of one unit of a class may take at its peak; the number of jobs follows
#: from it. Measured on one core, x86-64:
#: ordinary: a CPU kernel for all of Highway's instruction sets takes 0.5 to 0.6 GiB (g++ 12), a
#: small CUDA unit 0.2 to 0.4 GiB (nvcc 13.0); twice that for what is larger. heavy: FlashAttention
#: 2 for one architecture takes 2.9 to 3.7 GiB, FlashAttention 3 4.3 to 5.5 GiB.
MEMORY_CLASSES: Mapping[str, int] = {"ordinary": 3 << 29, "heavy": 6 << 30}
#: What a build may choose of kernels that take hours to compile: the least that shows the
#: libraries, a development set, or all. VLLM_FA_SET names one.
SETS = ("check", "dev", "full")
#: Suffix of sources that are compiled for GPU architectures: as CUDA or as HIP, by the device (one
#: source for both).
DEVICE_CODE = ".cu"

_EXTENSION_NAME = re.compile(r"vllm(\.[A-Za-z_][A-Za-z0-9_]*)+")
_RECORD_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
_DEFINITION = re.compile(r"[A-Z][A-Za-z0-9_]*(=[A-Za-z0-9_]+)?")
_LIST = re.compile(r"\S+( \S+)*")
_VERSION = re.compile(r"[0-9]+\.[0-9]+(\.[0-9]+)?")
_NEED = re.compile(r"(>=)?(\S+)")


@dataclass(frozen=True)
class Extension:
    """One shared library.

    Attributes:
        name: import name, such as ``vllm._C``; the last part names the file and the ``PyInit_``
            function.
        component: the package output, and CMake install component, that carries it.
        sources: units of the extension itself (its module entry point), relative to the source
            root.
        devices: devices that have it.
        needs_arch: GPU device -> what must be in the build's list: an entry as it is spelled
            (``9.0a``), or ``>=8.0``.
        min_toolkit: GPU device -> oldest toolkit that builds it.
        torch: it is compiled and linked with libtorch, and may register ops; otherwise it is a
            Python module and no more.
    """

    name: str
    component: str
    sources: tuple[str, ...]
    devices: tuple[str, ...] = KERNEL_DEVICES
    needs_arch: Mapping[str, str] = field(default_factory=dict)
    min_toolkit: Mapping[str, Version] = field(default_factory=dict)
    torch: bool = True


@dataclass(frozen=True)
class Kernel:
    """Sources that are built together, or not at all.

    Attributes:
        name: unique in the table.
        extension: name of the extension that the sources are linked into.
        devices: devices it is built for, from KERNEL_DEVICES.
        sources: relative to the source root.
        libraries: libraries of others that the sources compile and link with, as
            cmake/vllm_link_library.cmake spells them.
        memory: key of MEMORY_CLASSES.
        archs: GPU device -> architectures it is written for; a device is absent when no source is
            GPU code.
        min_toolkit: GPU device -> oldest toolkit that compiles it.
        optional: a tree or a build may be without it.
        missing: sources of an optional kernel that are not in the tree.
        definitions: macros that are defined on these sources and on no others.
        third_party: the locked project that has more of the sources; empty when all are in the
            tree.
        third_party_sources: relative to that project's folder. It may be absent until something is
            compiled.
        sets: choices of ``VLLM_FA_SET`` that have the kernel; empty when it needs no choice.
        set_definitions: choice -> macros that are defined beside ``definitions`` where it is the
            one.
    """

    name: str
    extension: str
    devices: tuple[str, ...]
    sources: tuple[str, ...]
    libraries: tuple[str, ...]
    memory: str
    archs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    min_toolkit: Mapping[str, Version] = field(default_factory=dict)
    optional: bool = False
    missing: tuple[str, ...] = ()
    definitions: tuple[str, ...] = ()
    third_party: str = ""
    third_party_sources: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    set_definitions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class KernelsTable:
    """The whole table, checked. ``path`` is where it was read from."""

    path: Path
    extensions: tuple[Extension, ...]
    kernels: tuple[Kernel, ...]


def records(document: Document, written: Written, kind: str) -> list[WrittenRecord]:
    """The records of one kind, written out, at least one; their keys are unchecked.

    Raises:
        ConfigurationError: there is none, or one is no table.
    """
    value = written.data.get(kind)
    if not isinstance(value, list) or not value:
        document.root.fail(kind, f"the table has no [[{kind}]] records", f"[[{kind}]] once or more")
    return [WrittenRecord(document, kind, index, written) for index in range(len(value))]


def _by_device(
    record: Record, key: str, devices: tuple[str, ...], pattern: re.Pattern[str]
) -> dict[str, str]:
    """A table from a GPU device of the record to a text that matches ``pattern``; empty when the key is absent."""
    found = record.texts_by(key, pattern)
    for device in found:
        if device not in devices:
            record.fail(
                key,
                f"{device!r} in {key!r} is no GPU device of this record",
                f"devices of {', '.join(devices) or 'none here'}",
            )
    return found


def _check_path(record: Record, source: str, what: str, expected: str) -> None:
    if source.startswith("/") or ".." in source.split("/"):
        record.fail(source, f"source {source!r} leaves {what}", expected)
    if PurePosixPath(source).as_posix() != source:
        record.fail(
            source,
            f"source {source!r} is not in its shortest form",
            PurePosixPath(source).as_posix(),
        )


def _third_party(record: Record) -> tuple[str, tuple[str, ...]]:
    """The project that has more of the record's sources, and these; they are looked for when something is compiled."""
    name = record.text("third_party", _RECORD_NAME, default="none")
    sources = record.texts("third_party_sources", required=False)
    if record.has("third_party") != bool(sources):
        record.fail(
            "third_party" if record.has("third_party") else "third_party_sources",
            "a project without sources, or sources without one",
            'third_party = "<name in third_party/lock.toml>" and third_party_sources = ["…"], or '
            "neither",
        )
    for source in sources:
        _check_path(record, source, f"the folder of {name}", "a path below it")
    return (name, sources) if sources else ("", ())


def _sources(
    record: Record, root: Path, *, optional: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The record's sources relative to the source root, and those of them that do not exist where it is optional."""
    folder = root / TABLE.rsplit("/", 1)[0]
    found, missing = [], []
    for source in record.texts("sources"):
        _check_path(record, source, "the folder of the table", f"a path below {folder}")
        path = (folder / source).relative_to(root).as_posix()
        found.append(path)
        if not (folder / source).is_file():
            if not optional:
                record.fail(source, f"source {source!r} does not exist", f"a file below {folder}")
            missing.append(path)
    return tuple(found), tuple(missing)


def _toolkits(record: Record, devices: tuple[str, ...]) -> dict[str, Version]:
    found = {
        device: Version(text)
        for device, text in _by_device(record, "min_toolkit", devices, _VERSION).items()
    }
    for device, version in found.items():
        if version <= gpu_targets.FLOORS[device]:
            floor = f"{gpu_targets.TOOLKITS[device]} {gpu_targets.FLOORS[device]}"
            record.fail(
                "min_toolkit",
                f"{device} {version} is what every build has",
                f"a release above {floor}, or no entry",
            )
    return found


def _extension(record: Record, root: Path) -> Extension:
    record.allow("name", "component", "sources", "devices", "needs_arch", "min_toolkit", "torch")
    devices = (
        record.texts("devices", choices=KERNEL_DEVICES) if record.has("devices") else KERNEL_DEVICES
    )
    gpus = tuple(device for device in devices if device in GPU_DEVICES)
    needs = _by_device(record, "needs_arch", gpus, _NEED)
    for device, need in needs.items():
        at_least, arch = need.startswith(">="), need.removeprefix(">=")
        if gpu_targets.parse(device, arch, record.at("needs_arch")) != (arch,) or (
            at_least and not re.fullmatch(r"[0-9]+\.[0-9]", arch)
        ):
            record.fail(
                "needs_arch",
                f"needs_arch = {need!r} is not valid",
                'an architecture such as "9.0a", or ">=8.0"',
            )
    sources = _sources(record, root)[0]
    for source in sources:
        if source.endswith(DEVICE_CODE):
            record.fail(
                source.split("/", 1)[1], f"{source!r} is GPU code", "a [[kernel]] of its own for it"
            )
    return Extension(
        name=record.text("name", _EXTENSION_NAME),
        component=record.text("component", _RECORD_NAME),
        sources=sources,
        devices=devices,
        needs_arch=needs,
        min_toolkit=_toolkits(record, gpus),
        torch=record.flag("torch", default=True),
    )


def _archs(
    record: Record, devices: tuple[str, ...], sources: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Architectures by GPU device: wanted where a source is GPU code, refused where none is."""
    gpus = tuple(device for device in devices if device in GPU_DEVICES)
    code = [source for source in sources if source.endswith(DEVICE_CODE)]
    if code and gpus != devices:
        others = ", ".join(device for device in devices if device not in GPU_DEVICES)
        record.fail(
            "devices",
            f"{DEVICE_CODE} sources are not for {others}",
            f"a kernel of its own for {others}",
        )
    found = _by_device(record, "archs", gpus, _LIST)
    if found and not code:
        record.fail(
            "archs",
            f"archs without a {DEVICE_CODE} source have no effect",
            f"a {DEVICE_CODE} source, or no archs",
        )
    for gpu in gpus:
        if code and gpu not in found:
            record.fail(
                "archs" if found else None,
                f"no archs for {gpu}",
                f'archs = {{ {gpu} = "…" }}: what {code[0]} is written for',
            )
    return {
        device: gpu_targets.parse(device, text, record.at("archs"))
        for device, text in found.items()
    }


def _kernel(record: Record, root: Path, extensions: list[Extension]) -> Kernel:
    record.allow(
        *(
            "name",
            "extension",
            "devices",
            "sources",
            "libraries",
            "memory",
            "archs",
            "min_toolkit",
            "optional",
        ),
        *(
            "definitions",
            "third_party",
            "third_party_sources",
            "headers",
            "sets",
            "set_definitions",
        ),
    )
    for folder in record.texts("headers", required=False):
        _check_path(record, folder, "the folder of the table", "a folder below it")
        if not ((root / TABLE).parent / folder).is_dir():
            record.fail(
                folder,
                f"{folder!r} in 'headers' does not exist",
                "a folder below that of the table",
            )
    name, of = record.text("name", _RECORD_NAME), record.text("extension", _EXTENSION_NAME)
    devices, optional = record.texts("devices", choices=KERNEL_DEVICES), record.flag("optional")
    sources, missing = _sources(record, root, optional=optional)
    third_party, third_party_sources = _third_party(record)
    extension = next((e for e in extensions if e.name == of), None)
    if extension is None:
        record.fail(
            "extension",
            f"no [[extension]] is named {of!r}",
            "one of " + ", ".join(e.name for e in extensions),
        )
    for device in devices:
        if device not in extension.devices:
            record.fail(
                "devices",
                f"{of!r} does not exist for {device}",
                "devices of " + ", ".join(extension.devices),
            )
    sets = record.texts("sets", choices=SETS, required=False)
    return Kernel(
        name=name,
        extension=of,
        devices=devices,
        sources=sources,
        libraries=record.texts("libraries", required=False),
        memory=record.text("memory", re.compile("|".join(MEMORY_CLASSES)), default="ordinary"),
        archs=_archs(record, devices, sources + third_party_sources),
        min_toolkit=_toolkits(record, tuple(device for device in devices if device in GPU_DEVICES)),
        optional=optional,
        missing=missing,
        definitions=record.texts("definitions", _DEFINITION, required=False),
        third_party=third_party,
        third_party_sources=third_party_sources,
        sets=sets,
        set_definitions=record.lists_by("set_definitions", sets, _DEFINITION),
    )


def _check_unique(checked: list[tuple[WrittenRecord, Extension | Kernel]]) -> None:
    """No name is in two records, and no source is twice in one library; libraries may share sources."""
    names: set[tuple[str, str]] = set()
    sources: dict[tuple[str, str, str], str] = {}
    for record, item in checked:
        if (record.kind, item.name) in names:
            record.fail(
                "name",
                f"a second [[{record.kind}]] is named {item.name!r}",
                "names that are unique in the table",
            )
        names.add((record.kind, item.name))
        library = item.extension if isinstance(item, Kernel) else item.name
        for device in item.devices:
            for source in item.sources:
                other = sources.setdefault((device, library, source), item.name)
                if other != item.name:
                    listed = source.split("/", 1)[1]
                    record.fail(
                        listed,
                        f"source {listed!r} is listed by {other!r} too",
                        "a source once for a device and extension",
                    )
            for source in item.third_party_sources if isinstance(item, Kernel) else ():
                other = sources.setdefault(
                    (device, library, f"{source} of a third party"), item.name
                )
                if other != item.name:
                    record.fail(
                        source,
                        f"source {source!r} is listed by {other!r} too",
                        "a source once for a device and extension",
                    )


def read(path: Path) -> tuple[Document, Written]:
    """The table at ``path``, and every record of it written out, unchecked.

    Raises:
        ConfigurationError: the file is missing or is no TOML, or a short form in it is malformed.
    """
    document = require_document(path, "the table of kernels")
    return document, write_out(document)


def load(root: Path) -> KernelsTable:
    """Read and check ``csrc/kernels.toml`` below the source root.

    Raises:
        ConfigurationError: the file is missing or is no TOML, a key is unknown or missing or of the
            wrong type, a source does not exist, a source is listed twice for one device and
            extension, a name is used by two records, an architecture does not exist. The message
            names the file and the line.
    """
    path = root / TABLE
    document, written = read(path)
    for key in written.data:
        if key not in ("extension", "kernel"):
            document.root.fail(
                key,
                f"unknown key {key!r}",
                "[[extension]] and [[kernel]] records, archs.NAME and group.NAME",
            )

    checked: list[tuple[WrittenRecord, Extension | Kernel]] = []
    extensions = []
    for record in records(document, written, "extension"):
        extension = _extension(record, root)
        extensions.append(extension)
        checked.append((record, extension))
    kernels = []
    for record in records(document, written, "kernel"):
        kernel = _kernel(record, root, extensions)
        kernels.append(kernel)
        checked.append((record, kernel))
    _check_unique(checked)
    return KernelsTable(path, tuple(extensions), tuple(kernels))
