# SPDX-License-Identifier: Apache-2.0
"""Adds builds to a store.

The document of a digest is written last, so a killed publisher leaves only unreferenced files.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.reuse.archives.archive_source import CONDA, WHEEL, ArchiveSource
from vllm_build.reuse.net.reuse_context import Context, small_file
from vllm_build.reuse.records import bounds, member_names, output_record
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import signed_statement, store_entry, store_folder, trust
from vllm_build.util import locks
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.files import disk_errors, sha256_of, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_build.reuse.records.output_record import Record
    from vllm_build.reuse.stores.signed_statement import Statement
    from vllm_build.reuse.stores.signer_keys import SigningKey


def _file(name: str, path: Path) -> store_entry.File:
    return store_entry.File(name, sha256_of(path), path.stat().st_size)


class Publisher:
    """Adds builds to a store, for one process at a time.

    Args:
        folder: of the store.
        incoming: folder for incomplete files, on the store's disk.
        key: signs the documents; None for a store without signatures.
        private: accept private builds.
    """

    def __init__(
        self, folder: Path, incoming: Path, key: SigningKey | None, *, private: bool = False
    ) -> None:
        self.folder, self._incoming, self._key, self._private = folder, incoming, key, private

    def put(self, source: Path, path: str, sha256: str) -> None:
        """Copy a file into the store, completely or not at all.

        Args:
            source: the file.
            path: its place in the store.
            sha256: of the file, computed before.

        Raises:
            RefusedError: the file has changed since. ResourceError: the disk is full.
        """
        target = self.folder / path
        if target.is_file() and sha256_of(target) == sha256:
            return
        copy = self._incoming / "file"
        with disk_errors(self.folder), source.open("rb") as stream, copy.open("wb") as out:
            shutil.copyfileobj(stream, out, 1 << 20)
            out.flush()
            # After a power failure, no document may name a file that is lost.
            os.fsync(out.fileno())
        if (found := sha256_of(copy)) != sha256:
            raise RefusedError(
                "sha256",
                str(source),
                f"it changed while it was copied, and now has sha256 {found}",
                expected=sha256,
                remedy="publish it again",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        copy.chmod(0o644)
        copy.replace(target)

    def add(self, found: Record, files: dict[str, Path], archive: Path | None) -> bool:
        """Add one build.

        Args:
            found: its record.
            files: path of each library -> file; unused if there is an archive.
            archive: wheel or ``.conda`` file that has the libraries; None to add them one by one.

        Returns:
            Whether the build is new to the store.

        Raises:
            RefusedError: the store has a different build with the same digest, platform and ABI;
                its document is malformed or, in a signed store, not signed; or the build is private
                and private builds are not accepted.
        """
        if found.private and not self._private:
            raise RefusedError(
                "private",
                found.output,
                f"it is a private build: {', '.join(found.private)}",
                expected="a build with only the tree's own flags and third-party sources, because "
                "others cannot tell what a private build contains",
                remedy="build again without these, or use vllm-build publish --private",
            )
        text = self._incoming / "record.json"
        text.write_bytes(found.text)
        kept = _file(member_names.record_name(found.output), text)
        libraries = tuple(
            store_entry.File(library.file, library.sha256, library.size)
            for library in found.libraries
        )
        build = store_entry.Build(
            found.platform,
            found.python_abi,
            kept,
            libraries,
            _file(archive.name, archive) if archive else None,
        )
        path = self.folder / store_entry.digest_path(found.digest)
        builds = self._known(path, found)
        for known in builds:
            if (known.platform, known.python_abi) != (build.platform, build.python_abi):
                continue
            if set(known.libraries) == set(build.libraries):
                return False
            raise RefusedError(
                "published",
                str(self.folder),
                f"the store has a different build of {found.output} with the digest {found.digest}",
                expected="the same bytes for the same digest: a store never replaces a build",
                remedy=f"publish to another store, or remove {path} first",
            )
        self.put(text, store_entry.member_path(kept.sha256), kept.sha256)
        if archive is None or build.archive is None:
            for library in found.libraries:
                self.put(
                    files[library.file], store_entry.member_path(library.sha256), library.sha256
                )
        else:
            self.put(
                archive,
                store_entry.archive_path(build.archive.sha256, archive.name),
                build.archive.sha256,
            )
        document = store_entry.Entry(found.output, found.digest, (*builds, build)).text()
        if build.archive is not None and build.archive.name.endswith(CONDA):
            self._attest(signed_statement.of_package(build.archive))
        self._attest(signed_statement.of_document(found.output, found.digest, document.encode()))
        write_text(path, document)
        return True

    def _attest(self, about: Statement) -> None:
        """Write a signed statement, if the store is signed.

        The statement about a file is written before any document that names the file, and the
        statement about a document before the document.
        """
        if self._key is not None:
            envelope = self._incoming / "statement.json"
            envelope.write_text(signed_statement.sign(about, self._key), encoding="utf-8")
            self.put(envelope, about.path, sha256_of(envelope))

    def _known(self, path: Path, found: Record) -> tuple[store_entry.Build, ...]:
        data = small_file(path)
        if data is None:
            return ()
        if self._key is not None:
            # The new signature covers the builds that the document already has, so the same key
            # must have signed these.
            about = signed_statement.of_document(found.output, found.digest, data)
            place = self.folder / about.path
            signed_statement.verify(
                small_file(place, bounds.STATEMENT), about, self._key.public, str(place)
            )
        return store_entry.parse(data, found.output, found.digest, str(path)).builds


@contextmanager
def open_store(
    folder: Path, key: SigningKey | None, *, private: bool = False
) -> Iterator[Publisher]:
    """Open a store for one publisher, or create it; other publishers wait.

    Args:
        folder: of the store.
        key: signs the documents; None for a store without signatures.
        private: accept private builds.

    Raises:
        ConfigurationError: the folder has other files, or the store has another signer than
            ``key``. RefusedError: it is another kind of store.
    """
    marker = folder / store_entry.MARKER
    store_folder.require_store_or_empty(folder)
    with disk_errors(folder), locks.waiting(folder / ".lock"):
        # Checked again, because the folder may have changed while this process waited.
        store_folder.require_store_or_empty(folder)
        if (data := small_file(marker)) is not None:
            declared = store_entry.check_marker(data, str(marker))
            trust.require_publisher(
                folder, declared, key, empty=not any((folder / "digests").glob("*.json"))
            )
        # Written first, because it proves that "incoming" belongs to the store.
        write_text(marker, store_entry.marker_text(key.public if key else None))
        store_folder.remove_unfinished(folder)
        (folder / "incoming").mkdir()
        with tempfile.TemporaryDirectory(dir=folder / "incoming") as incoming:
            yield Publisher(folder, Path(incoming), key, private=private)
        store_folder.remove_unfinished(folder)


def _from_folder(publisher: Publisher, root: Path) -> dict[str, bool]:
    done = {}
    for path in sorted((root / "vllm" / "_build_info").glob("*.json")):
        output = member_names.output_of(path.relative_to(root).as_posix())
        data = small_file(path)
        if output is None or data is None:
            continue
        if output == member_names.FOREIGN:
            raise ConfigurationError(
                f"the kernels in {root} come from an official wheel",
                expected="kernels built from a tree",
                remedy="build them first",
            )
        found = output_record.parse(data, output, str(path))
        files = {library.file: root / library.file for library in found.libraries}
        for library in found.libraries:
            if (
                not files[library.file].is_file()
                or sha256_of(files[library.file]) != library.sha256
            ):
                raise RefusedError(
                    "sha256",
                    str(root),
                    f"{library.file} does not match its record",
                    expected=f"sha256 {library.sha256}",
                    remedy="build again",
                )
        done[f"{output} {found.digest}"] = publisher.add(found, files, None)
    if not done:
        raise ConfigurationError(
            f"{root} has no built kernels",
            expected="libraries, and their records in vllm/_build_info/*.json",
            remedy="build them first",
        )
    return done


def _from_archive(publisher: Publisher, path: Path, context: Context) -> dict[str, bool]:
    done = {}
    with context.cache.in_use(), ArchiveSource(context, str(path)) as source:
        for output in source.outputs():
            found = source.record(output)
            done[f"{output} {found.digest}"] = publisher.add(found, source.libraries(found), path)
    if not done:
        raise ConfigurationError(
            f"{path} has no record of kernels",
            expected="vllm/_build_info/*.json in the file",
            remedy="name a wheel or package with kernels",
        )
    return done


def publish(
    built: Path,
    folder: Path,
    context: Context,
    key: SigningKey | None = None,
    *,
    private: bool = False,
) -> dict[str, bool]:
    """Add the kernels of a wheel, a ``.conda`` file or a folder to the store ``folder``.

    Args:
        built: a wheel, a ``.conda`` file, or a folder with ``vllm/_build_info``, such as a tree
            after an editable build or ``site-packages``.
        folder: the store.
        context: its cache receives the archive's members.
        key: signs the documents; a signed store needs its signer's key each time.
        private: accept private builds.

    Returns:
        ``<output> <digest>`` -> whether the build is new to the store.

    Raises:
        ConfigurationError: there is nothing to publish, ``folder`` is not a store, or the store
            has another signer than ``key``.
        RefusedError: the kernels failed a check, or the store has different ones.
    """
    built = built.absolute()
    if not built.is_dir() and not built.name.endswith((WHEEL, CONDA)):
        raise ConfigurationError(
            f"{built} cannot be published",
            expected="a wheel, a .conda file, or a folder with built kernels",
            remedy="correct the path, or omit it to publish this tree's kernels",
        )
    with open_store(folder.absolute(), key, private=private) as publisher:
        if built.is_dir():
            return _from_folder(publisher, built)
        return _from_archive(publisher, built, context)
