# SPDX-License-Identifier: Apache-2.0
"""Kernels from one wheel or ``.conda`` file, given by path or address."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from vllm_build.reuse.archives import conda_file, wheel_file
from vllm_build.reuse.net import remote_file
from vllm_build.reuse.net.remote_file import RemoteFile
from vllm_build.reuse.net.reuse_context import Context, file_name, local_path, refusal_of
from vllm_build.reuse.net.transport import AbsentError
from vllm_build.reuse.records import bounds, fitness, member_names
from vllm_build.reuse.records.output_record import Listed, Record, parse
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util.errors import ConfigurationError, FetchError
from vllm_build.util.files import NotRegularError, open_regular, sha256_of

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

    from vllm_build.reuse.records.output_record import Library

WHEEL, CONDA = ".whl", ".conda"


class ArchiveSource:
    """One archive; the first access opens it, the end of the ``with`` block closes it.

    Args:
        context: of the reuse.
        location: path or address; its ending tells the format.
        sha256: required sha256 of the file, which is then fetched whole, once. Without it, only the
            needed members of a remote wheel are fetched.
        range_ok: fetch only the needed members of a remote wheel even if the sha256 is known; the
            caller has other means to check them.

    Raises:
        ConfigurationError: the location is neither a wheel nor a ``.conda`` file.
    """

    def __init__(
        self, context: Context, location: str, sha256: str | None = None, *, range_ok: bool = False
    ) -> None:
        self.where, self.name = location, file_name(location)
        if not self.name.endswith((WHEEL, CONDA)):
            raise ConfigurationError(
                f"{location!r} is neither a wheel nor a conda package",
                expected="the path or address of a .whl or .conda file",
            )
        self.context = context
        self._sha256 = None if range_ok and self.name.endswith(WHEEL) else sha256
        self._stack = ExitStack()
        self._archive: wheel_file.Archive | None = None
        self._file: RemoteFile | None = None
        self._unpacked: dict[str, Path] = {}
        self._records: dict[str, bytes] = {}
        self._announced: dict[str, Listed] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._archive = self._file = None

    def _open(self) -> wheel_file.Archive:
        if self._archive is not None:
            return self._archive
        self._folder = self._stack.enter_context(self.context.cache.incoming())
        stream = self._stack.enter_context(self._stream())
        self._archive = archive = wheel_file.Archive(stream, self.where)
        try:
            if self.name.endswith(CONDA):
                self._unpack(archive)
            else:
                self._list(archive)
        except RefusedError:
            self._forget()
            raise
        return archive

    def _stream(self) -> Any:
        path = local_path(self.where)
        if path is None:
            found = self._remote()
            if isinstance(found, RemoteFile):
                self._file = found
                return found
            path = found
        elif self._sha256 and (found_sha256 := _sha256_of(path)) != self._sha256:
            raise RefusedError(
                "sha256", self.where, f"the file has sha256 {found_sha256}", expected=self._sha256
            )
        try:
            return open_regular(path)
        except NotRegularError as error:
            raise refusal_of(error, str(path)) from error
        except OSError as error:
            raise FetchError(f"{path}: {error.strerror}", expected="a readable file") from error

    def _remote(self) -> RemoteFile | Path:
        context = self.context
        try:
            if self._sha256:
                return remote_file.copy_of(
                    context.transport,
                    self.where,
                    context.cache,
                    self._folder,
                    context.progress,
                    self._sha256,
                )
            return remote_file.open_remote(
                context.transport, self.where, context.cache, self._folder, context.progress
            )
        except AbsentError as error:
            raise FetchError(
                f"{self.where}: no such file",
                expected="a wheel or a .conda file",
                remedy="check the address",
            ) from error

    def _unpack(self, archive: wheel_file.Archive) -> None:
        if self._file is not None:
            member = archive.window(conda_file.content_member(archive))
            with self.context.cache.alone(self._file.key or "00"):
                self._file.fetch([member], shared=True)
                folder = self._folder / "content"
                folder.mkdir()
                self._unpacked = conda_file.unpack(archive, folder)
                self._file.forget()
        else:
            folder = self._folder / "content"
            folder.mkdir()
            self._unpacked = conda_file.unpack(archive, folder)
        for name, path in self._unpacked.items():
            if output := member_names.output_of(name):
                bounds.check_size(path.stat().st_size, bounds.DOCUMENT, self.where, name)
                self._records[output] = path.read_bytes()
        self._check_listed({name for name in self._unpacked if member_names.is_library(name)})

    def _list(self, archive: wheel_file.Archive) -> None:
        fitness.require_wheel_name(self.name, self.where)
        found = {
            name: output for name in archive.members if (output := member_names.output_of(name))
        }
        if not found:
            raise RefusedError(
                "no-record",
                self.where,
                "the wheel has no record of its kernels, so it was not built by this project",
                expected="vllm/_build_info/<output>.json in the wheel",
                remedy="build and publish this tree, unset VLLM_USE_PRECOMPILED and "
                "VLLM_PRECOMPILED_WHEEL_LOCATION to compile, "
                "or set VLLM_PRECOMPILED_FOREIGN=1 to audit and use an official wheel",
            )
        bounds.check_size(len(found), bounds.LIBRARIES, self.where, "the list of records")
        if self._file is not None:
            self._file.fetch([archive.window(name) for name in found])
        self._records = {
            output: archive.read(name, bounds.DOCUMENT) for name, output in found.items()
        }
        wheel_file.check_wheel(archive, self._check_listed(set()))

    def _check_listed(self, libraries: set[str]) -> set[str]:
        """Parse every record, and refuse libraries that none of them lists.

        Returns:
            The libraries that the records list.
        """
        if member_names.FOREIGN in self._records:
            raise RefusedError(
                "no-record",
                self.where,
                "its libraries come from an official wheel, not from a build of this project",
                expected="a build of this tree",
                remedy="build this tree, or name the official wheel itself and set "
                "VLLM_PRECOMPILED_FOREIGN=1",
            )
        listed = {
            library.file for output in self._records for library in self.record(output).libraries
        }
        if odd := libraries - listed:
            raise RefusedError(
                "member-name",
                self.where,
                f"no record lists {', '.join(sorted(odd))}",
                expected="only libraries that a record lists",
            )
        return listed

    def outputs(self) -> list[str]:
        """The names of the outputs in the archive.

        Raises:
            FetchError: the archive cannot be fetched or read. RefusedError: it failed a check.
        """
        self._open()
        return sorted(self._records)

    def record(self, output: str) -> Record:
        """The record of an output that :meth:`outputs` lists.

        Raises:
            RefusedError: the record is malformed.
        """
        return parse(self._records[output], output, self.where)

    def announce(self, record: Listed) -> None:
        """Announce that the files of an output will be requested.

        The first call of :meth:`libraries` then fetches the files of all announced outputs, in as
        few requests as possible.
        """
        self._announced[record.output] = record

    def libraries(self, record: Listed) -> dict[str, Path]:
        """The files of an output, complete and checked, in the cache.

        Returns:
            Path relative to the folder that holds ``vllm`` -> file in the cache.

        Raises:
            FetchError: a file cannot be fetched. RefusedError: a file does not match the record.
        """
        cache = self.context.cache
        found = {
            library.file: path
            for library in record.libraries
            if (path := cache.find(library.sha256))
        }
        if len(found) < len(record.libraries):
            archive = self._open()
            self.announce(record)
            # One process fetches from a version of an archive; the others then find the members in
            # the cache.
            with cache.alone((self._file.key if self._file else None) or "00"):
                found |= self._fetch(archive)
        return {library.file: found[library.file] for library in record.libraries}

    def _fetch(self, archive: wheel_file.Archive) -> dict[str, Path]:
        """Fetch the files of all announced outputs that the cache does not have.

        Returns:
            All files of these outputs, also those that another process has added in the meantime.
        """
        cache = self.context.cache
        every = [
            library for announced in self._announced.values() for library in announced.libraries
        ]
        found = {library.file: path for library in every if (path := cache.find(library.sha256))}
        missing = [library for library in every if library.file not in found]
        try:
            if self._file is not None and missing:
                self._file.fetch(
                    [archive.window(lib.file) for lib in missing if lib.file in archive.members],
                    shared=True,
                )
            for library in missing:
                found[library.file] = self._take(archive, library)
        except RefusedError:
            self._forget()
            raise
        # The parts are no longer needed. After a broken connection they stay, for the next run.
        self._forget()
        return found

    def _take(self, archive: wheel_file.Archive, library: Library) -> Path:
        if self.name.endswith(CONDA):
            file = self._unpacked.get(library.file)
            if file is None:
                raise RefusedError(
                    "missing",
                    self.where,
                    f"{library.file} is missing",
                    expected="every library that the record lists",
                )
            if (size := file.stat().st_size) != library.size:
                raise RefusedError(
                    "size",
                    self.where,
                    f"{library.file} has {size} bytes",
                    expected=f"{library.size} bytes, as the record says",
                )
        else:
            file = self._folder / library.sha256
            archive.extract(library, file)
        with file.open("rb") as stream:
            fitness.require_machine(stream.read(64), self.where, library.file)
        return self.context.store(file, library.sha256, self.where, library.file)

    def _forget(self) -> None:
        if self._file is not None:
            self._file.forget()


def _sha256_of(path: Path) -> str:
    try:
        return sha256_of(path)
    except NotRegularError as error:
        raise refusal_of(error, str(path)) from error
    except OSError as error:
        raise FetchError(f"{path}: {error.strerror}", expected="a readable file") from error
