# SPDX-License-Identifier: Apache-2.0
"""Official vLLM wheels: their metadata, and the choice of libraries that replace ours.

Such a wheel has no record of its kernels. Its members are checked against the sha256 in its
``RECORD``.
"""

from __future__ import annotations

import base64
import binascii
import csv
import email
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.markers import UndefinedEnvironmentName
from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from vllm_build.reuse.archives.archive_source import WHEEL, ArchiveSource
from vllm_build.reuse.records import bounds, member_names
from vllm_build.reuse.records.output_record import Library
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from packaging.tags import Tag

    from vllm_build.kernels.build_plan import PlannedExtension
    from vllm_build.reuse.archives.wheel_file import Archive
    from vllm_build.reuse.net.reuse_context import Context

#: Module names that official wheels have instead of ours, best first.
_MODULES = {"_C": ("_C_stable_libtorch", "_C"), "_moe_C": ("_moe_C_stable_libtorch", "_moe_C")}
_AVX512 = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
#: Official wheels for x86 CPUs have ``_C`` three times. Each variant has the flags in /proc/cpuinfo
#: that vLLM 0.32 requires to load it. Best first.
_CPU_MODULES = (
    ("_C", _AVX512 | {"avx512_bf16"}),
    ("_C_AVX512", _AVX512),
    ("_C_AVX2", frozenset({"avx2"})),
)


@dataclass(frozen=True)
class Facts:
    """Facts from a wheel's metadata and file name.

    Attributes:
        name: of the distribution, normalised.
        version: of the distribution.
        tags: in the file name.
        torch: the requirement on torch; None if there is none.
    """

    name: str
    version: Version
    tags: frozenset[Tag]
    torch: Requirement | None


@dataclass(frozen=True)
class Pick:
    """A library of the wheel that replaces one of our extensions.

    Attributes:
        extension: name of our extension, such as ``vllm._C``.
        library: file in the wheel.
        cpu_flags: flags that a processor must have to run it, as /proc/cpuinfo spells them.
    """

    extension: str
    library: Library
    cpu_flags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Picks:
    """All libraries taken from one wheel, in the form that :class:`ArchiveSource` needs."""

    picks: tuple[Pick, ...]
    output: str = member_names.FOREIGN

    @property
    def libraries(self) -> tuple[Library, ...]:
        """The files of the libraries."""
        return tuple(pick.library for pick in self.picks)


def pick(
    extensions: Iterable[PlannedExtension], found: Mapping[str, Library], cpu_flags: frozenset[str]
) -> tuple[Picks, tuple[str, ...]]:
    """Choose a library for each extension of this tree.

    Args:
        extensions: of the plan.
        found: path -> library of the wheel.
        cpu_flags: of this machine.

    Returns:
        The libraries, and the names of the extensions that the wheel has no library for.
    """
    picks, missing = [], []
    for extension in extensions:
        choices = [
            (module, frozenset[str]())
            for module in _MODULES.get(extension.module, (extension.module,))
        ]
        if f"{extension.folder}/_C_AVX2.abi3.so" in found and extension.module == "_C":
            choices = [(module, flags) for module, flags in _CPU_MODULES if flags <= cpu_flags]
        for module, flags in choices:
            paths = [f"{extension.folder}/{module}{suffix}" for suffix in (".abi3.so", ".so")]
            library = next((found[path] for path in paths if path in found), None)
            if library is not None:
                picks.append(Pick(extension.name, library, flags))
                break
        else:
            missing.append(extension.name)
    return Picks(tuple(picks)), tuple(missing)


def _metadata(text: bytes, where: str) -> tuple[str, Version, Requirement | None]:
    try:
        message = email.message_from_string(text.decode())
        requirements = [Requirement(line) for line in message.get_all("Requires-Dist") or []]
        name, version = canonicalize_name(str(message["Name"])), Version(str(message["Version"]))
        here = [
            r
            for r in requirements
            if r.name == "torch" and (r.marker is None or r.marker.evaluate({"extra": ""}))
        ]
    except (ValueError, UndefinedEnvironmentName) as error:  # from packaging, and invalid UTF-8
        raise RefusedError(
            "document", where, f"METADATA: {error}", expected="a wheel's valid metadata"
        ) from error
    return name, version, here[0] if here else None


def _record(text: bytes, where: str) -> dict[str, Library]:
    """The libraries that RECORD lists."""
    found = {}
    try:
        rows = list(csv.reader(io.StringIO(text.decode())))
    except (UnicodeDecodeError, csv.Error) as error:
        raise RefusedError(
            "document", where, f"RECORD: {error}", expected="the list of a wheel's files"
        ) from error
    for row in rows:
        if not row or not member_names.is_library(row[0]):
            continue
        try:
            path, digest, size = row
            method, _, value = digest.partition("=")
            sha256 = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()
            # int() would accept more forms than the format allows.
            library = Library(path, sha256, int(size if re.fullmatch(r"[0-9]{1,18}", size) else ""))
        except (ValueError, binascii.Error) as error:
            raise RefusedError(
                "document", where, f"RECORD: {row[0]}: {error}", expected="path, sha256 and size"
            ) from error
        if method != "sha256" or not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise RefusedError(
                "document",
                where,
                f"RECORD: {path} has {digest!r}",
                expected="the sha256 of each library",
            )
        bounds.check_size(library.size, bounds.LIBRARY, where, path)
        found[path] = library
    return found


class ForeignWheel(ArchiveSource):
    """An official wheel, given by path or address; see :class:`ArchiveSource`.

    Attributes:
        facts: from its metadata; set by :meth:`read`.
        found: path -> library of the wheel; set by :meth:`read`.
    """

    facts: Facts
    found: dict[str, Library]

    def __init__(self, context: Context, location: str, sha256: str | None = None) -> None:
        super().__init__(context, location, sha256)
        if not self.name.endswith(WHEEL):
            raise ConfigurationError(
                f"{location!r} is not a wheel, and VLLM_PRECOMPILED_FOREIGN allows only wheels",
                expected="the path or address of a wheel",
            )

    def read(self) -> None:
        """Read the directory and the metadata, but no library.

        Raises:
            FetchError: the wheel cannot be fetched. RefusedError: it failed a check of its
                integrity, or is a build of this project.
        """
        self._open()

    def _list(self, archive: Archive) -> None:
        if member_names.record_name(member_names.FOREIGN) in archive.members:
            raise RefusedError(
                "foreign",
                self.where,
                "this project built the wheel, with the libraries of an official one",
                expected="the official wheel itself",
                remedy="name the official wheel, or install this wheel with pip",
            )
        if ours := [name for name in archive.members if member_names.output_of(name)]:
            raise RefusedError(
                "foreign",
                self.where,
                f"the wheel has {ours[0]}, so this project built it",
                expected="an official wheel",
                remedy="unset VLLM_PRECOMPILED_FOREIGN: wheels of this project are compared by "
                "their digests",
            )
        wanted = {}
        for name in ("METADATA", "RECORD"):
            members = [
                member
                for member in archive.members
                if re.fullmatch(rf"[^/]+\.dist-info/{name}", member)
            ]
            if len(members) != 1:
                raise RefusedError(
                    "document",
                    self.where,
                    f"the wheel has {name} {len(members)} times",
                    expected=f"one {name}",
                )
            wanted[name] = members[0]
        if self._file is not None:
            self._file.fetch([archive.window(member) for member in wanted.values()])
        texts = {name: archive.read(member, bounds.DIRECTORY) for name, member in wanted.items()}
        try:
            tags = parse_wheel_filename(self.name)[3]
        except InvalidWheelFilename as error:
            raise RefusedError(
                "platform",
                self.where,
                f"{error}",
                expected="a valid wheel name, whose tags tell the platform",
            ) from error
        name, version, torch = _metadata(texts["METADATA"], self.where)
        self.facts = Facts(name, version, tags, torch)
        listed = _record(texts["RECORD"], self.where)
        self.found = {name: listed[name] for name in archive.members if name in listed}
