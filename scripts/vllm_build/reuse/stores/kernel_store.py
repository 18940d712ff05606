# SPDX-License-Identifier: Apache-2.0
"""Kernels from a store, which is a folder or the same files over http."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.reuse.archives.archive_source import ArchiveSource
from vllm_build.reuse.net import download, remote_file
from vllm_build.reuse.net.reuse_context import Context, local_path, refusal_of, small_file
from vllm_build.reuse.net.transport import AbsentError
from vllm_build.reuse.records import bounds, fitness, output_record
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import signed_statement, store_entry
from vllm_build.util.errors import FetchError
from vllm_build.util.files import NotRegularError, copy_regular, disk_errors

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.reuse.records.fitness import Machine, Wanted
    from vllm_build.reuse.records.output_record import Record
    from vllm_build.reuse.stores.signer_keys import PublicKey


class Base:
    """Reads the files of a store or a channel by their paths below its root."""

    def __init__(self, context: Context, location: str) -> None:
        self.context, self.where = context, location.rstrip("/")
        self.folder = local_path(location)

    def place(self, path: str) -> str:
        """The path or address of a file."""
        return str(self.folder / path) if self.folder is not None else f"{self.where}/{path}"

    def read(self, path: str, limit: int = bounds.DOCUMENT) -> bytes | None:
        """Read a small file; None if it does not exist.

        Raises:
            FetchError: it cannot be fetched or read. RefusedError: it is larger than ``limit``.
        """
        if self.folder is not None:
            return small_file(self.folder / path, limit)
        return download.fetch_small(self.context.transport, self.place(path), limit)

    def member(self, file: store_entry.File) -> Path:
        """A member, found by its sha256; see :meth:`file`."""
        return self.file(store_entry.member_path(file.sha256), file)

    def file(self, path: str, file: store_entry.File) -> Path:
        """Copy a file that an index lists into the cache, and check it.

        Args:
            path: of the file, below the root.
            file: the index's entry.

        Returns:
            The file in the cache.

        Raises:
            FetchError: it cannot be fetched or read. RefusedError: it does not match the entry.
        """
        try:
            with self.context.cache.incoming() as folder:
                found = self._fetch(path, file, folder)
        except (AbsentError, FileNotFoundError) as error:
            raise FetchError(
                f"{self.place(path)}: no such file; the index lists it as {file.name}",
                expected="a store with all files that its index lists",
                remedy="publish the build again; `vllm-build store check` lists all missing files",
            ) from error
        if (size := found.stat().st_size) != file.size:
            raise RefusedError(
                "size",
                self.place(path),
                f"{file.name} has {size} bytes",
                expected=f"{file.size} bytes, as the index says",
            )
        return found

    def _fetch(self, path: str, file: store_entry.File, folder: Path) -> Path:
        context = self.context
        if self.folder is None:
            return remote_file.copy_of(
                context.transport,
                self.place(path),
                context.cache,
                folder,
                context.progress,
                file.sha256,
            )
        with context.cache.alone(file.sha256):
            if found := context.cache.find(file.sha256):
                return found
            source, copy = self.folder / path, folder / "member"
            # Checked before copying, because a file of the wrong size may be huge.
            if (size := source.stat().st_size) != file.size:
                raise RefusedError(
                    "size",
                    str(source),
                    f"{file.name} has {size} bytes",
                    expected=f"{file.size} bytes, as the index says",
                )
            try:
                with disk_errors(folder):
                    copy_regular(source, copy, file.size)
            except NotRegularError as error:
                raise refusal_of(error, str(source)) from error
            return context.store(copy, file.sha256, str(source), file.name)


class StoreOffer:
    """A build in a store.

    Args:
        base: files of the store.
        found: the document of the build's digest.
        build: the build.
        archive: the archive that has its files; None if the store has them as members.
    """

    def __init__(
        self,
        base: Base,
        found: store_entry.Entry,
        build: store_entry.Build,
        archive: ArchiveSource | None,
    ) -> None:
        self.where, self._base, self._entry, self._build, self._archive = (
            base.where,
            base,
            found,
            build,
            archive,
        )

    def record(self) -> Record:
        """Read the record, and compare it with the index.

        Raises:
            FetchError: it cannot be fetched. RefusedError: it is malformed, or contradicts the
                index.
        """
        data = self._base.member(self._build.record).read_bytes()
        result = output_record.parse(data, self._entry.output, self.where)
        listed = {(library.file, library.sha256, library.size) for library in result.libraries}
        if listed != {(file.name, file.sha256, file.size) for file in self._build.libraries}:
            raise RefusedError(
                "index",
                self.where,
                "the index and the record list different files",
                expected="the same files in both",
            )
        return result

    def announce(self, record: Record) -> None:
        """Announce that its files will be requested."""
        if self._archive is not None:
            self._archive.announce(record)

    def libraries(self, wanted: Record) -> dict[str, Path]:
        """The files, complete and checked, in the cache.

        Raises:
            FetchError: a file cannot be fetched. RefusedError: a file does not match the record.
        """
        if self._archive is not None:
            return self._archive.libraries(wanted)
        found = {file.name: self._base.member(file) for file in self._build.libraries}
        for name, path in found.items():
            with path.open("rb") as stream:
                fitness.require_machine(stream.read(64), self.where, name)
        return found


class Store:
    """A store with the layout that :mod:`vllm_build.reuse.stores.store_entry` describes.

    Args:
        base: files of the store.
        signer: key that must have signed its documents; None for a store without signatures.
    """

    def __init__(self, base: Base, signer: PublicKey | None = None) -> None:
        self.where, self._base, self._signer = base.where, base, signer
        self._archives: dict[str, ArchiveSource] = {}

    def find(self, wanted: Wanted, machine: Machine) -> StoreOffer | None:
        """The build of a digest that fits the machine best; None if the store has none.

        Raises:
            FetchError: the store cannot be reached. RefusedError: its document is malformed, or
                ``signer`` has not signed it.
        """
        path = store_entry.digest_path(wanted.digest)
        data = self._base.read(path)
        if data is None:
            return None
        if self._signer is not None:
            about = signed_statement.of_document(wanted.output, wanted.digest, data)
            signed_statement.verify(
                self._base.read(about.path, bounds.STATEMENT),
                about,
                self._signer,
                self._base.place(about.path),
            )
        found = store_entry.parse(data, wanted.output, wanted.digest, self._base.place(path))
        fitting = [
            build
            for build in found.builds
            if (build.platform, build.python_abi) == (machine.platform, machine.python_abi)
        ]
        # A build for another machine is offered too; the check that refuses it says what it is for.
        build = (fitting or found.builds)[0]
        return StoreOffer(
            self._base, found, build, self._archive(build.archive) if build.archive else None
        )

    def _archive(self, file: store_entry.File) -> ArchiveSource:
        """The archive, opened once for all outputs in it."""
        place = self._base.place(store_entry.archive_path(file.sha256, file.name))
        if place not in self._archives:
            self._archives[place] = ArchiveSource(
                self._base.context, place, file.sha256, range_ok=True
            )
        return self._archives[place]

    def close(self) -> None:
        """Close the opened archives."""
        for archive in self._archives.values():
            archive.__exit__()
