# SPDX-License-Identifier: Apache-2.0
"""Adds what was built to a store.

The document of a digest is written last: a publisher that dies leaves files nobody refers to.
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
from vllm_build.reuse.stores import signed_statement, store_entry, trust
from vllm_build.util import locks, removal
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
    """A store that is open for additions by one process.

    Args:
        folder: of the store.
        incoming: for files that are not whole yet, on the store's disk.
        key: that signs; None for a store without signatures.
        private: private builds are added.
    """

    def __init__(
        self, folder: Path, incoming: Path, key: SigningKey | None, *, private: bool = False
    ) -> None:
        self.folder, self._incoming, self._key, self._private = folder, incoming, key, private

    def put(self, source: Path, path: str, sha256: str) -> None:
        """Copy a file to its place, whole or not at all.

        Raises:
            RefusedError: the file changed while it was copied. ResourceError: the disk is full.
        """
        target = self.folder / path
        if target.is_file() and sha256_of(target) == sha256:
            return
        copy = self._incoming / "file"
        with disk_errors(self.folder), source.open("rb") as stream, copy.open("wb") as out:
            shutil.copyfileobj(stream, out, 1 << 20)
            out.flush()
            # The document that names this file must not survive a power cut that the file does not.
            os.fsync(out.fileno())
        if (found := sha256_of(copy)) != sha256:
            raise RefusedError(
                "sha256",
                str(source),
                f"it has sha256 {found}",
                expected=f"{sha256}, as a moment ago",
                remedy="publish it again",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        copy.chmod(0o644)
        copy.replace(target)

    def add(self, found: Record, files: dict[str, Path], archive: Path | None) -> bool:
        """Add one build; returns whether the store did not have it.

        Raises:
            RefusedError: the store has another build of the same digest, platform and ABI; or its
                document is malformed, or not signed in a signed store; or the build is private, and
                such builds are not added.
        """
        if found.private and not self._private:
            raise RefusedError(
                "private",
                found.output,
                f"it is a private build: {', '.join(found.private)}",
                expected="a build that its sources describe: others cannot tell what this one "
                "contains",
                remedy="build again without these; or vllm-build publish --private",
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
                f"the store has another build of {found.output} from the digest {found.digest}",
                expected="the same bytes from the same digest: the store keeps what it has",
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
        """Sign, in a store that is signed.

        A file has its statement before a document names it, and a document before it is there.
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
            # What is added to a document is signed with all that it had: that must be the signer's
            # already.
            about = signed_statement.of_document(found.output, found.digest, data)
            place = self.folder / about.path
            signed_statement.verify(
                small_file(place, bounds.STATEMENT), about, self._key.public, str(place)
            )
        return store_entry.parse(data, found.output, found.digest, str(path)).builds


@contextmanager
def opened(folder: Path, key: SigningKey | None, *, private: bool = False) -> Iterator[Publisher]:
    """A store, made when there is none, for the only publisher at the time; others wait.

    Raises:
        ConfigurationError: the folder holds something else, or a store that ``key`` does not sign.
            RefusedError: a store of another kind.
    """
    marker = folder / store_entry.MARKER
    _require_store_or_empty(folder)
    with disk_errors(folder), locks.waiting(folder / ".lock"):
        # Again, as the folder can have changed while the lock was waited for.
        _require_store_or_empty(folder)
        if (data := small_file(marker)) is not None:
            declared = store_entry.check_marker(data, str(marker))
            trust.require_publisher(
                folder, declared, key, empty=not any((folder / "digests").glob("*.json"))
            )
        # First of all: it is what says that "incoming" is the store's.
        write_text(marker, store_entry.marker_text(key.public if key else None))
        _remove_unfinished(folder)
        (folder / "incoming").mkdir()
        with tempfile.TemporaryDirectory(dir=folder / "incoming") as incoming:
            yield Publisher(folder, Path(incoming), key, private=private)
        _remove_unfinished(folder)


def _require_store_or_empty(folder: Path) -> None:
    if not folder.exists():
        if folder.is_symlink():
            raise ConfigurationError(
                f"{folder} is a symbolic link to {folder.readlink()}, which does not exist",
                expected="a store, or a folder that is new or empty",
                remedy="make the folder that the link leads to, or name another one with --store",
            )
        return
    if not folder.is_dir():
        raise ConfigurationError(
            f"{folder} is a file",
            expected="a store, or a folder that is new or empty",
            remedy="name another folder with --store",
        )
    if (folder / store_entry.MARKER).exists():
        return
    # What a publisher makes before the marker, and the marker under its temporary name.
    others = sorted(
        path.name
        for path in folder.iterdir()
        if path.name != ".lock" and not path.name.startswith(f".{store_entry.MARKER}.")
    )
    if others:
        raise ConfigurationError(
            f"{folder} holds something else than a store: {removal.some(others)}",
            expected="a store, or a folder that is new or empty",
            remedy="name another folder",
        )


def _is_store(folder: Path) -> bool:
    data = small_file(folder / store_entry.MARKER)
    if data is None:
        return False
    # Raises where it is something else; the signer does not matter here.
    store_entry.check_marker(data, str(folder / store_entry.MARKER))
    return True


def _remove_unfinished(folder: Path) -> None:
    """Remove what publishers that were killed left; the lock of the store is held."""
    removal.remove_tree(folder / "incoming", below=folder, proof=_is_store)
    for place in (folder, folder / "digests"):
        for path in (
            [path for path in place.iterdir() if store_entry.is_unfinished(path)]
            if place.is_dir()
            else []
        ):
            removal.remove_tree(path, below=folder, proof=_is_store)


def _from_folder(publisher: Publisher, root: Path) -> dict[str, bool]:
    done = {}
    for path in sorted((root / "vllm" / "_build_info").glob("*.json")):
        output = member_names.output_of(path.relative_to(root).as_posix())
        data = small_file(path)
        if output is None or data is None:
            continue
        if output == member_names.FOREIGN:
            raise ConfigurationError(
                f"the kernels in {root} are those of an official wheel",
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
                    f"{library.file} is not the file of its record",
                    expected=library.sha256,
                    remedy="build again",
                )
        done[f"{output} {found.digest}"] = publisher.add(found, files, None)
    if not done:
        raise ConfigurationError(
            f"{root} has no built kernels",
            expected="vllm/_build_info/*.json beside the libraries",
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
            expected="vllm/_build_info/*.json in it",
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
    """Add a wheel, a ``.conda`` file, or the kernels that lie in a folder, to the store ``folder``.

    Args:
        built: a wheel, a ``.conda`` file, or a folder that holds ``vllm/_build_info``: a tree after
            an editable build, ``site-packages``.
        folder: the store.
        context: whose cache the archive's members go through.
        key: that signs; a signed store asks for its own each time.
        private: private builds are added.

    Returns:
        For each ``<output> <digest>`` whether it is new.

    Raises:
        ConfigurationError: there is nothing to publish, or the folder is no store, or one that
            ``key`` does not sign.
        RefusedError: what was built is not sound, or contradicts what the store has.
    """
    built = built.absolute()
    if not built.is_dir() and not built.name.endswith((WHEEL, CONDA)):
        raise ConfigurationError(
            f"{built} cannot be published",
            expected="a wheel, a .conda file, or a folder with built kernels",
            remedy="correct the path; without one, this tree's kernels are published",
        )
    with opened(folder.absolute(), key, private=private) as publisher:
        if built.is_dir():
            return _from_folder(publisher, built)
        return _from_archive(publisher, built, context)
