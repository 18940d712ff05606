# SPDX-License-Identifier: Apache-2.0
"""Reads and checks fields of the records in ``csrc/kernels.toml``.

Every function raises ConfigurationError, with the file and the line, for a value that is not valid.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from packaging.version import Version

from vllm_build.architectures import gpu_targets
from vllm_build.kernels.kernel_records import DEVICE_CODE, GPU_DEVICES

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.util.record_reader import Record

#: Folder of the table; sources in it are relative to this folder.
FOLDER = "csrc"
RECORD_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
_LIST = re.compile(r"\S+( \S+)*")
_VERSION = re.compile(r"[0-9]+\.[0-9]+(\.[0-9]+)?")


def by_device(
    record: Record, key: str, devices: tuple[str, ...], pattern: re.Pattern[str]
) -> dict[str, str]:
    """GPU device -> text of a key, which must match ``pattern``; empty if the key is absent."""
    found = record.texts_by(key, pattern)
    for device in found:
        if device not in devices:
            record.fail(
                key,
                f"{device!r} in {key!r} is not a GPU device of this record",
                f"GPU devices of this record: {', '.join(devices) or 'it has none'}",
            )
    return found


def check_path(record: Record, source: str, what: str, expected: str) -> None:
    """Refuse a path that leaves its folder, or that could be shorter."""
    if source.startswith("/") or ".." in source.split("/"):
        record.fail(source, f"source {source!r} leaves {what}", expected)
    if PurePosixPath(source).as_posix() != source:
        record.fail(
            source,
            f"source {source!r} is not in its shortest form",
            PurePosixPath(source).as_posix(),
        )


def third_party(record: Record) -> tuple[str, tuple[str, ...]]:
    """The third-party project of a record and its sources, which may not exist yet."""
    name = record.text("third_party", RECORD_NAME, default="none")
    sources = record.texts("third_party_sources", required=False)
    if record.has("third_party") != bool(sources):
        record.fail(
            "third_party" if record.has("third_party") else "third_party_sources",
            "a third-party project without sources, or sources without a project",
            'third_party = "<name in third_party/lock.toml>" and third_party_sources = ["…"], or '
            "neither",
        )
    for source in sources:
        check_path(record, source, f"the folder of {name}", "a path below it")
    return (name, sources) if sources else ("", ())


def sources(
    record: Record, root: Path, *, optional: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The record's sources relative to the source root, and the missing ones if it is optional."""
    folder = root / FOLDER
    found, missing = [], []
    for source in record.texts("sources", required=not record.has("third_party_sources")):
        check_path(record, source, "the folder of the table", f"a path below {folder}")
        path = (folder / source).relative_to(root).as_posix()
        found.append(path)
        if not (folder / source).is_file():
            if not optional:
                record.fail(source, f"source {source!r} does not exist", f"a file below {folder}")
            missing.append(path)
    return tuple(found), tuple(missing)


def toolkits(record: Record, devices: tuple[str, ...]) -> dict[str, Version]:
    """GPU device -> the oldest toolkit; a release that every build has is refused."""
    found = {
        device: Version(text)
        for device, text in by_device(record, "min_toolkit", devices, _VERSION).items()
    }
    for device, version in found.items():
        if version <= gpu_targets.FLOORS[device]:
            floor = f"{gpu_targets.TOOLKITS[device]} {gpu_targets.FLOORS[device]}"
            record.fail(
                "min_toolkit",
                f"{device} {version} has no effect: every build has at least that",
                f"a release above {floor}, or no entry",
            )
    return found


def options_by_toolkit(record: Record, pattern: re.Pattern[str]) -> dict[Version, tuple[str, ...]]:
    """Oldest toolkit -> options, which must match ``pattern``; empty if the key is absent."""
    written = record.data.get("options_from", {})
    releases = tuple(written) if isinstance(written, dict) else ()
    for release in releases:
        if not _VERSION.fullmatch(release):
            record.fail("options_from", f"{release!r} is not a release", 'a release such as "12.8"')
    found = record.lists_by("options_from", releases, pattern)
    return {Version(release): options for release, options in found.items()}


def archs(
    record: Record, devices: tuple[str, ...], sources: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """GPU device -> architectures; required for GPU code and refused without it."""
    gpus = tuple(device for device in devices if device in GPU_DEVICES)
    code = [source for source in sources if source.endswith(DEVICE_CODE)]
    if code and gpus != devices:
        others = ", ".join(device for device in devices if device not in GPU_DEVICES)
        record.fail(
            "devices",
            f"{DEVICE_CODE} sources are not for {others}",
            f"a separate kernel for {others}",
        )
    found = by_device(record, "archs", gpus, _LIST)
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
                f'archs = {{ {gpu} = "…" }}: the architectures that {code[0]} is written for',
            )
    return {
        device: gpu_targets.parse(device, text, record.at("archs"))
        for device, text in found.items()
    }
