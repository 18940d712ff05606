# SPDX-License-Identifier: Apache-2.0
"""Locked third-party sources: ``third_party/lock.toml`` and the extracted copies in the cache.

A build only reads the cache; ``vllm-build fetch`` (:mod:`vllm_build.commands.packages.fetch`) fills
it. This module needs only the standard library.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from vllm_build.sources import archive_members, folder_digest
from vllm_build.util import paths, removal
from vllm_build.util.errors import FetchError, IntegrityError
from vllm_build.util.files import disk_errors, sha256_of
from vllm_build.util.record_reader import Record, require_document

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vllm_build.util.record_reader import Document

LOCK = "third_party/lock.toml"
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_WORDS = {
    "record": "not a table",
    "missing": "{key!r} is missing",
    "text": "{key} = {value!r} is not a string",
}
#: Variables with a name of upstream's; the others are named after the source.
_VARIABLES = {"cutlass": "VLLM_CUTLASS_SRC_DIR", "flash-attention": "VLLM_FLASH_ATTN_SRC_DIR"}


@dataclass(frozen=True)
class Source:
    """One locked source archive.

    Attributes:
        name: the build's name for it; the variable :func:`variable` replaces its sources.
        version: upstream's version.
        filename, size, sha256: of the archive.
        get: how to obtain it: ``type``, and the keys of that type.
        tree_sha256: of the extracted folder, as :func:`vllm_build.sources.folder_digest.digest_of`
            computes it.
        outputs: packages that contain its compiled code.
        include: folders and files of the archive to extract, without its top folder; empty means
            all.
        on_request: whether it is fetched only by name, because it is large and rarely needed.
    """

    name: str
    version: str
    filename: str
    size: int
    sha256: str
    tree_sha256: str
    get: Mapping[str, str]
    outputs: tuple[str, ...]
    include: tuple[str, ...] = ()
    on_request: bool = False

    @property
    def folder(self) -> Path:
        """Folder of the extracted sources in the cache.

        Its name depends on the content, so a changed lock never finds old sources.
        """
        part = (
            "-" + hashlib.sha256("\n".join(self.include).encode()).hexdigest()[:8]
            if self.include
            else ""
        )
        return (
            paths.cache_root() / "sources" / f"{self.name}-{self.version}-{self.sha256[:16]}{part}"
        )

    def includes(self, path: str) -> bool:
        """Whether to extract a member of the archive; ``path`` does not include the top folder."""
        return not self.include or any(
            path == entry or path.startswith(entry + "/") for entry in self.include
        )

    def cached(self) -> Path | None:
        """The extracted sources, verified against the lock; None if they have not been fetched.

        A process reads them once, see :mod:`vllm_build.sources.folder_digest`.

        Raises:
            IntegrityError: a file was changed, added or removed after the extraction.
        """
        if not self.folder.is_dir():
            return None
        if not self._has_locked_content(folder_digest.known_digest_of):
            # Only success is remembered: the sources may be extracted again.
            folder_digest.forget()
            raise IntegrityError(
                f"the sources of {self.name} in {self.folder} are not the locked ones: they were "
                "changed after they were extracted",
                expected=f"tree_sha256 {self.tree_sha256}, as {LOCK} says",
                remedy=f"`vllm-build fetch {self.name}` extracts them again; to build from your "
                f"own sources, set {variable(self.name)}",
            )
        return self.folder

    def is_intact(self) -> bool:
        """Read the extracted folder, and tell whether it has exactly the locked content."""
        return self._has_locked_content(folder_digest.digest_of)

    def _has_locked_content(self, digest_of: Callable[[Path], str]) -> bool:
        try:
            return digest_of(self.folder) == self.tree_sha256
        except OSError:
            return False


def folder(root: Path, name: str, chosen: Path | None, otherwise: str = "") -> Path:
    """The sources of a project that a build needs: the user's, else the locked ones.

    Args:
        root: the source tree.
        name: the project's name in the lock.
        chosen: the user's folder.
        otherwise: another remedy, for the message.

    Raises:
        ConfigurationError: as :func:`read`.
        FetchError: the locked sources have not been fetched.
        IntegrityError: the fetched sources were changed.
    """
    source = chosen or read(root)[name].cached()
    if source is None:
        raise FetchError(
            f"the sources of {name} are not in the cache",
            expected=f"the sources that {LOCK} names",
            remedy=f"run `vllm-build fetch {name}`, or set {variable(name)} to a folder that "
            f"contains them{otherwise}",
        )
    return source


def variable(name: str) -> str:
    """The environment variable that replaces the locked sources by a folder of the user's."""
    return _VARIABLES.get(name, name.upper().replace("-", "_") + "_SRC_DIR")


def _file_name(record: Record, key: str) -> str:
    value = record.text(key)
    if not _SAFE.fullmatch(value):
        record.fail(key, f"{key} = {value!r} cannot name a file", "letters, digits and ._+-")
    return value


def _include(record: Record) -> tuple[str, ...]:
    """Paths inside the archive's top folder."""
    found = record.texts("include", required=False)
    for path in found:
        if PurePosixPath(path).as_posix() != path or path[0] in "/." or ".." in path.split("/"):
            record.fail(
                "include",
                f"include = {list(found)!r} is not valid",
                "folders and files of the archive, without its top folder",
            )
    return found


def _source(document: Document, number: int, entry: object) -> Source:
    record = Record(
        document,
        ("source", number),
        entry,
        what="[[source]]",
        label=f"[[source]] number {number + 1}: ",
    )
    get = record.texts_by("get")
    if "type" not in get:
        record.fail(
            "get" if record.has("get") else None,
            f"get = {get!r} is not valid",
            'get = { type = "…", … }',
        )
    record.text("license")
    return Source(
        _file_name(record, "name"),
        _file_name(record, "version"),
        _file_name(record, "filename"),
        record.number("size", least=1),
        record.sha256("sha256"),
        record.sha256("tree_sha256"),
        get,
        record.texts("outputs", _SAFE),
        _include(record),
        record.flag("on_request"),
    )


def read(root: Path) -> dict[str, Source]:
    """The locked sources of the tree by name.

    Raises:
        ConfigurationError: the lock is missing, is not TOML or has another schema, or an entry is
            malformed; the message names the line.
    """
    document = require_document(
        root / LOCK, "the lock of third-party sources", remedy=f"correct {LOCK}", words=_WORDS
    )
    entries = document.data.get("source", [])
    if document.data.get("schema") != 1 or not isinstance(entries, list):
        document.root.fail(
            "schema",
            f"it has schema {document.data.get('schema')!r}",
            "schema = 1 and [[source]] tables",
        )
    sources = [_source(document, number, entry) for number, entry in enumerate(entries)]
    return {source.name: source for source in sources}


def extract(source: Source, archive: Path) -> Path:
    """Verify ``archive`` and unpack it into the cache; returns the folder.

    The folder appears complete, and replaces a damaged one.

    Raises:
        IntegrityError: the archive is not the locked one, contains a member that must not be
            extracted, or unpacks to another tree than the lock says.
        ResourceError: the disk is full.
    """
    found = sha256_of(archive)
    if found != source.sha256:
        raise IntegrityError(
            f"{archive} has sha256 {found}",
            expected=f"sha256 {source.sha256}",
            remedy="fetch it again",
        )
    with disk_errors(source.folder.parent):
        source.folder.parent.mkdir(parents=True, exist_ok=True)
        with removal.temporary(source.folder.parent, ".incoming-") as temporary:
            unpacked, damaged = temporary / "unpacked", temporary / "damaged"
            unpacked.mkdir(mode=0o755)
            archive_members.unpack(source, archive, unpacked)
            if (tree := folder_digest.digest_of(unpacked)) != source.tree_sha256:
                raise IntegrityError(
                    f"{source.filename} unpacks to a tree with sha256 {tree}",
                    expected=f"tree_sha256 {source.tree_sha256}",
                    remedy=f"correct {LOCK}",
                )
            if source.folder.is_dir():
                if source.is_intact():
                    return source.folder
                source.folder.rename(damaged)
            unpacked.rename(source.folder)
    return source.folder


def tree_digest(source: Source, archive: Path) -> str:
    """The ``tree_sha256`` that an archive unpacks to, for a lock that does not have it yet.

    Raises:
        IntegrityError: the archive contains a member that must not be extracted.
        ResourceError: the disk is full.
    """
    with disk_errors(source.folder.parent):
        source.folder.parent.mkdir(parents=True, exist_ok=True)
        with removal.temporary(source.folder.parent, ".incoming-") as temporary:
            archive_members.unpack(source, archive, temporary)
            return folder_digest.digest_of(temporary)
