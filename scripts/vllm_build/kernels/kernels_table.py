# SPDX-License-Identifier: Apache-2.0
"""Reads and checks the table of kernels, ``csrc/kernels.toml``.

The table contains ``[[extension]]`` records (a shared library and the package output that contains
it) and ``[[kernel]]`` records (sources that are compiled together for some devices into one
extension). Every mistake in it is a ConfigurationError that names the file and the line.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vllm_build.architectures import gpu_targets
from vllm_build.kernels import record_fields
from vllm_build.kernels.kernel_records import (
    DEVICE_CODE,
    GENERATORS,
    GPU_DEVICES,
    KERNEL_DEVICES,
    MEMORY_CLASSES,
    PROVIDERS,
    SETS,
    Extension,
    Kernel,
    KernelsTable,
)
from vllm_build.kernels.table_shorthand import WrittenRecord, write_out
from vllm_build.util.record_reader import require_document

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.kernels.table_shorthand import Written
    from vllm_build.util.record_reader import Document, Record

#: Path below the source root. Sources in the table are relative to the folder of this file.
TABLE = "csrc/kernels.toml"

_EXTENSION_NAME = re.compile(r"vllm(\.[A-Za-z_][A-Za-z0-9_]*)+")
_DEFINITION = re.compile(r"[A-Z][A-Za-z0-9_]*(=[A-Za-z0-9_]+)?")
_OPTION = re.compile(r"--?[a-z][a-z0-9_-]*(=[a-z0-9]+)?")
#: The C++ standards that the compilers of all variants know.
_STANDARDS = (17, 20)
_NEED = re.compile(r"(>=)?(\S+)")


def records(document: Document, written: Written, kind: str) -> list[WrittenRecord]:
    """The expanded records of one kind; their keys are unchecked.

    Raises:
        ConfigurationError: there are none, or one is not a table.
    """
    value = written.data.get(kind)
    if not isinstance(value, list) or not value:
        document.root.fail(kind, f"the table has no [[{kind}]] records", f"[[{kind}]] once or more")
    return [WrittenRecord(document, kind, index, written) for index in range(len(value))]


def _extension(record: Record, root: Path) -> Extension:
    record.allow(
        *("name", "component", "sources", "devices", "needs_arch", "min_toolkit", "torch"),
        *("set_variable", "standard"),
    )
    devices = (
        record.texts("devices", choices=KERNEL_DEVICES) if record.has("devices") else KERNEL_DEVICES
    )
    gpus = tuple(device for device in devices if device in GPU_DEVICES)
    needs = record_fields.by_device(record, "needs_arch", gpus, _NEED)
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
    sources = record_fields.sources(record, root)[0]
    for source in sources:
        if source.endswith(DEVICE_CODE):
            record.fail(
                source.split("/", 1)[1], f"{source!r} is GPU code", "a separate [[kernel]] for it"
            )
    return Extension(
        name=record.text("name", _EXTENSION_NAME),
        component=record.text("component", record_fields.RECORD_NAME),
        sources=sources,
        devices=devices,
        needs_arch=needs,
        min_toolkit=record_fields.toolkits(record, gpus),
        torch=record.flag("torch", default=True),
        set_variable=record.text(
            "set_variable", choices=tuple(SETS), default=Extension.set_variable
        ),
        standard=_standard(record),
    )


def _standard(record: Record) -> int:
    standard = record.number("standard", least=1) if record.has("standard") else Extension.standard
    if standard not in _STANDARDS:
        record.fail(
            "standard",
            f"standard = {standard} is not valid",
            "one of " + ", ".join(map(str, _STANDARDS)),
        )
    return standard


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
            "provider",
            "library_definitions",
            "options",
            "options_from",
            "generators",
        ),
    )
    for folder in record.texts("headers", required=False):
        record_fields.check_path(record, folder, "the folder of the table", "a folder below it")
        if not ((root / TABLE).parent / folder).is_dir():
            record.fail(
                folder,
                f"{folder!r} in 'headers' does not exist",
                "a folder below that of the table",
            )
    name, of = (
        record.text("name", record_fields.RECORD_NAME),
        record.text("extension", _EXTENSION_NAME),
    )
    devices, optional = record.texts("devices", choices=KERNEL_DEVICES), record.flag("optional")
    sources, missing = record_fields.sources(record, root, optional=optional)
    third_party, third_party_sources = record_fields.third_party(record)
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
    sets = record.texts("sets", choices=SETS[extension.set_variable], required=False)
    gpus = tuple(device for device in devices if device in GPU_DEVICES)
    options = record.texts("options", _OPTION, required=False)
    if options and not gpus:
        record.fail("options", "options without GPU code have no effect", "a GPU device, or none")
    generators = record.texts("generators", choices=tuple(GENERATORS), required=False)
    if generators and not third_party:
        record.fail("generators", "generators without a third-party project", "third_party")
    return Kernel(
        name=name,
        extension=of,
        devices=devices,
        sources=sources,
        libraries=record.texts("libraries", required=False),
        memory=record.text("memory", re.compile("|".join(MEMORY_CLASSES)), default="ordinary"),
        archs=record_fields.archs(record, devices, sources + third_party_sources),
        min_toolkit=record_fields.toolkits(record, gpus),
        optional=optional,
        missing=missing,
        definitions=record.texts("definitions", _DEFINITION, required=False),
        third_party=third_party,
        third_party_sources=third_party_sources,
        sets=sets,
        set_definitions=record.lists_by("set_definitions", sets, _DEFINITION),
        provider=record_fields.by_device(record, "provider", gpus, re.compile("|".join(PROVIDERS))),
        library_definitions=record.texts("library_definitions", _DEFINITION, required=False),
        options=options,
        options_from=record_fields.options_by_toolkit(record, _OPTION),
        generators=generators,
    )


def _check_unique(checked: list[tuple[WrittenRecord, Extension | Kernel]]) -> None:
    """Refuse a name in two records, and a source listed twice for one library and device."""
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
                        "each source once per device and extension",
                    )
            for source in item.third_party_sources if isinstance(item, Kernel) else ():
                other = sources.setdefault(
                    (device, library, f"{source} of a third party"), item.name
                )
                if other != item.name:
                    record.fail(
                        source,
                        f"source {source!r} is listed by {other!r} too",
                        "each source once per device and extension",
                    )


def read(path: Path) -> tuple[Document, Written]:
    """The table at ``path`` and its expanded records, unchecked.

    Raises:
        ConfigurationError: the file is missing or is not TOML, or a short form is malformed.
    """
    document = require_document(path, "the table of kernels")
    return document, write_out(document)


def load(root: Path) -> KernelsTable:
    """Read and check ``csrc/kernels.toml`` below the source root.

    Raises:
        ConfigurationError: the file is missing or is not TOML; a key is unknown, missing or of the
            wrong type; a source does not exist or is listed twice for one device and extension; two
            records have the same name; an architecture does not exist. The message names the file
            and the line.
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
