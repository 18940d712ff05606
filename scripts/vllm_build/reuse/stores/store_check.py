# SPDX-License-Identifier: Apache-2.0
"""Verifies a whole store.

Every document, file, sha256 and signature is checked, and files that no document names are listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.reuse.archives.archive_source import CONDA, ArchiveSource
from vllm_build.reuse.net.reuse_context import Context, small_file
from vllm_build.reuse.records import bounds, member_names, output_record
from vllm_build.reuse.records.output_record import SHA256, Reader, load_json
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import signed_statement, signer_keys, store_entry, trust
from vllm_build.util.errors import ConfigurationError, VllmBuildError
from vllm_build.util.files import sha256_of

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.reuse.stores.signed_statement import Statement
    from vllm_build.reuse.stores.signer_keys import PublicKey


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        digests: number of documents.
        files: number of files that they name.
        size: of these files, in bytes.
        problems: a message for each problem.
        unused: files that no document names.
        signer: id of the key that verified the statements; None if none was used.
    """

    digests: int
    files: int
    size: int
    problems: tuple[str, ...]
    unused: tuple[str, ...]
    signer: str | None


class _Check:
    def __init__(self, folder: Path, context: Context) -> None:
        self.folder, self.context = folder, context
        self.signer: PublicKey | None = None
        self.problems: list[str] = []
        self.used: dict[str, int] = {}

    def check_document(self, path: Path) -> None:
        where = path.relative_to(self.folder).as_posix()
        try:
            if not SHA256.fullmatch(path.stem) or path.suffix != ".json":
                raise RefusedError(
                    "index", where, "its name is not a digest", expected="<build digest>.json"
                )
            data = small_file(path) or b""
            output = Reader(load_json(data, where, "the index"), where, "the index").text("output")
            self._check_signed(signed_statement.of_document(output, path.stem, data))
            for build in store_entry.parse(data, output, path.stem, where).builds:
                self._check_build(build, output, path.stem, where)
        except VllmBuildError as error:
            self.problems.append(error.message)

    def _check_build(self, build: store_entry.Build, output: str, digest: str, where: str) -> None:
        self._check_file(store_entry.member_path(build.record.sha256), build.record)
        found = output_record.parse(
            small_file(self.folder / store_entry.member_path(build.record.sha256)) or b"",
            output,
            where,
        )
        said = (
            found.digest,
            found.platform,
            found.python_abi,
            {(lib.file, lib.sha256, lib.size) for lib in found.libraries},
        )
        if said != (
            digest,
            build.platform,
            build.python_abi,
            {(f.name, f.sha256, f.size) for f in build.libraries},
        ):
            raise RefusedError(
                "index",
                where,
                f"it contradicts the record {member_names.record_name(output)}",
                expected="the same facts",
            )
        if build.archive is None:
            for library in build.libraries:
                self._check_file(store_entry.member_path(library.sha256), library)
            return
        path = store_entry.archive_path(build.archive.sha256, build.archive.name)
        self._check_file(path, build.archive)
        if build.archive.name.endswith(CONDA):
            self._check_signed(signed_statement.of_package(build.archive))
        with ArchiveSource(self.context, str(self.folder / path)) as source:
            if output not in source.outputs() or source.record(output).text != found.text:
                raise RefusedError(
                    "index",
                    where,
                    f"{path} has a different record of {output}",
                    expected="the record that the index names",
                )
            source.libraries(found)

    def _check_signed(self, about: Statement) -> None:
        if self.signer is not None:
            place = self.folder / about.path
            signed_statement.verify(
                small_file(place, bounds.STATEMENT), about, self.signer, about.path
            )
            self.used[about.path] = place.stat().st_size

    def _check_file(self, path: str, file: store_entry.File) -> None:
        place = self.folder / path
        if not place.is_file() or place.is_symlink():
            raise RefusedError(
                "missing", path, f"no such file: {file.name}", expected="a regular file"
            )
        self.used[path] = place.stat().st_size
        if self.used[path] != file.size:
            raise RefusedError(
                "size", path, f"it has {self.used[path]} bytes", expected=f"{file.size} bytes"
            )
        if (found := sha256_of(place)) != file.sha256:
            raise RefusedError("sha256", path, f"it has sha256 {found}", expected=file.sha256)


def check(folder: Path, context: Context, key: PublicKey | None = None) -> Report:
    """Verify the store ``folder``.

    Args:
        folder: the store.
        context: its cache receives the archives' members.
        key: of the signer; None means the key that the store declares, if it declares one.

    Raises:
        ConfigurationError: ``folder`` is not a store, or the library that verifies signatures is
            not installed.
    """
    marker = small_file(folder / store_entry.MARKER)
    if marker is None:
        raise ConfigurationError(
            f"{folder} is not a store",
            expected=f"a folder with {store_entry.MARKER}",
            remedy="correct the path, or make a store: vllm-build publish --store FOLDER",
        )
    run, parts = _Check(folder, context), ["members", "archives", "attestations"]
    try:
        declared = store_entry.check_marker(marker, str(folder))
        run.signer = trust.require_signer(declared, key or declared, str(folder), "--key")
    except RefusedError as error:
        run.problems.append(error.message)
        parts.remove("attestations")  # They cannot be checked, so they are not listed as unused.
    if run.signer is not None:
        signer_keys.library()  # Fails here if it is missing, which is not a problem of the store.
    there = sorted((folder / "digests").iterdir()) if (folder / "digests").is_dir() else []
    # A killed publisher may have left an unfinished document, or a running one may be writing it.
    # The next publisher removes those that were left.
    documents = [path for path in there if not store_entry.is_unfinished(path)]
    with context.cache.in_use():
        for path in documents:
            run.check_document(path)
    there = [
        path for part in parts for path in sorted((folder / part).rglob("*")) if not path.is_dir()
    ]
    signer = run.signer.keyid if run.signer else None
    unused = [
        name for path in there if (name := path.relative_to(folder).as_posix()) not in run.used
    ]
    return Report(
        len(documents),
        len(run.used),
        sum(run.used.values()),
        tuple(run.problems),
        tuple(unused),
        signer,
    )
