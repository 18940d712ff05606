# SPDX-License-Identifier: Apache-2.0
"""The layout of a store, and the documents of its digests.

::

    store.json                              marks the folder as a store
    digests/<build digest>.json             the builds with this digest
    members/<2 digits>/<sha256>             records, and libraries that were published from a folder
    archives/<2 digits>/<sha256>/<name>     wheels and .conda files
    attestations/<2 digits>/<sha256>.json   signed stores only: the signed statement about the
                                            document or .conda file with this sha256

Documents contain no paths. Every path follows from a sha256, so an index cannot point outside the
store. The same files work on a disk and, served as static files, over http.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vllm_build.reuse.records import bounds, member_names
from vllm_build.reuse.records.output_record import SHA256, Reader, load_json
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import signer_keys
from vllm_build.util.files import unfinished
from vllm_build.util.redaction import excerpt

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.reuse.stores.signer_keys import PublicKey

MARKER = "store.json"
SCHEMA = 1
MARK: dict[str, Any] = {"schema": SCHEMA, "kind": "vllm-kernels"}
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,200}\.(?:whl|conda)")
_MOST_BUILDS = 256


def digest_path(digest: str) -> str:
    """The path of the document of a digest."""
    return f"digests/{digest}.json"


def is_unfinished(path: Path) -> bool:
    """Whether a killed publisher left this file, the marker or a document, unfinished."""
    name = unfinished(path.name)
    return name is not None and (
        name == MARKER
        or (name.endswith(".json") and SHA256.fullmatch(name.removesuffix(".json")) is not None)
    )


def member_path(sha256: str) -> str:
    """The path of a member."""
    return f"members/{sha256[:2]}/{sha256}"


def archive_path(sha256: str, name: str) -> str:
    """The path of an archive."""
    return f"archives/{sha256[:2]}/{sha256}/{name}"


def attestation_path(sha256: str) -> str:
    """The path of the statement about a file."""
    return f"attestations/{sha256[:2]}/{sha256}.json"


def marker_text(signer: PublicKey | None) -> str:
    """The content of ``store.json``; it declares the signer if there is one."""
    return json.dumps({**MARK, "signer": signer.declared()} if signer else MARK) + "\n"


@dataclass(frozen=True)
class File:
    """A file of a store.

    Attributes:
        name: a member's path in the package, or an archive's file name.
        sha256: of the file.
        size: in bytes.
    """

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Build:
    """One build of a digest.

    Attributes:
        platform: as ``sysconfig.get_platform()`` names it.
        python_abi: ``abi3``, or an interpreter's SOABI.
        record: its record.
        libraries: its libraries.
        archive: the archive that has the libraries; None if the store has them as members.
    """

    platform: str
    python_abi: str
    record: File
    libraries: tuple[File, ...]
    archive: File | None


@dataclass(frozen=True)
class Entry:
    """All builds of one output with one digest."""

    output: str
    digest: str
    builds: tuple[Build, ...]

    def text(self) -> str:
        """The document."""
        builds = [
            {
                "platform": build.platform,
                "python_abi": build.python_abi,
                "archive": vars(build.archive) if build.archive else None,
                "members": [vars(file) for file in (build.record, *build.libraries)],
            }
            for build in self.builds
        ]
        document = {
            "schema": SCHEMA,
            "output": self.output,
            "digest": self.digest,
            "builds": builds,
        }
        return json.dumps(document, indent=2, sort_keys=True) + "\n"


def check_marker(data: bytes, where: str) -> PublicKey | None:
    """Parse ``store.json``.

    Returns:
        The signer that the store declares; None if it is not signed.

    Raises:
        RefusedError: it does not mark a store of this layout, or its signer is malformed.
    """
    document = load_json(data, where, MARKER)
    signed = "signer" in document
    signer = document.pop("signer", None)
    if document != MARK:
        raise RefusedError(
            "index", where, f"{MARKER} marks another kind of store", expected=json.dumps(MARK)
        )
    return signer_keys.parse(signer, where) if signed else None


def _file(entry: Any, where: str, what: str, limit: int) -> File:
    reader = Reader(entry, where, what)
    return File(reader.text("name"), reader.sha256("sha256"), reader.size("size", limit))


def _build(entry: Any, output: str, where: str) -> Build:
    reader = Reader(entry, where, "a build of the index")
    files = [
        _file(item, where, "a member of the index", bounds.LIBRARY)
        for item in reader.items("members", bounds.LIBRARIES + 1)
    ]
    member_names.check((file.name for file in files), where)
    records = [file for file in files if file.name == member_names.record_name(output)]
    libraries = tuple(file for file in files if file not in records)
    if len(records) != 1 or any(not member_names.is_library(file.name) for file in libraries):
        raise RefusedError(
            "index",
            where,
            f"a build has the members {excerpt(', '.join(f.name for f in files))}",
            expected="one record, and otherwise libraries",
        )
    archive = None
    if (given := reader.document.get("archive")) is not None:
        archive = _file(given, where, "an archive of the index", bounds.ARCHIVE)
        if not _FILE.fullmatch(archive.name):
            raise RefusedError(
                "index",
                where,
                f"the index names the archive {excerpt(archive.name, 100)!r}",
                expected="the plain file name of a wheel or .conda file",
            )
    return Build(reader.text("platform"), reader.text("python_abi"), records[0], libraries, archive)


def parse(data: bytes, output: str, digest: str, where: str) -> Entry:
    """Parse the document of ``digest``.

    Raises:
        RefusedError: it is malformed, has another digest or output, or has names that no file of a
            store has.
    """
    bounds.check_size(len(data), bounds.DOCUMENT, where, "the index")
    reader = Reader(load_json(data, where, "the index"), where, "the index")
    said = (reader.document.get("schema"), reader.text("output"), reader.sha256("digest"))
    if said != (SCHEMA, output, digest):
        raise RefusedError(
            "index",
            where,
            f"the index has schema, output and digest {said}",
            expected=f"{(SCHEMA, output, digest)}",
        )
    builds = tuple(_build(item, output, where) for item in reader.items("builds", _MOST_BUILDS))
    if not builds:
        raise RefusedError("index", where, "the index has no build", expected="at least one")
    return Entry(output, digest, builds)
