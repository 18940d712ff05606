# SPDX-License-Identifier: Apache-2.0
"""Verifies a whole store: every document, every file, every sha256, every signature, and that nothing lies there that no document names."""

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
    """Numbers of digests, files and their bytes; what is wrong; files that nothing refers to; id of the key that verified statements."""

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

    def document(self, path: Path) -> None:
        where = path.relative_to(self.folder).as_posix()
        try:
            if not SHA256.fullmatch(path.stem) or path.suffix != ".json":
                raise RefusedError(
                    "index", where, "its name is no digest", expected="<build digest>.json"
                )
            data = small_file(path) or b""
            output = Reader(load_json(data, where, "the index"), where, "the index").text("output")
            self._signed(signed_statement.of_document(output, path.stem, data))
            for build in store_entry.parse(data, output, path.stem, where).builds:
                self._build(build, output, path.stem, where)
        except VllmBuildError as error:
            self.problems.append(error.message)

    def _build(self, build: store_entry.Build, output: str, digest: str, where: str) -> None:
        self._file(store_entry.member_path(build.record.sha256), build.record)
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
                f"it and the record of {member_names.record_name(output)} contradict one another",
                expected="the same facts",
            )
        if build.archive is None:
            for library in build.libraries:
                self._file(store_entry.member_path(library.sha256), library)
            return
        path = store_entry.archive_path(build.archive.sha256, build.archive.name)
        self._file(path, build.archive)
        if build.archive.name.endswith(CONDA):
            self._signed(signed_statement.of_package(build.archive))
        with ArchiveSource(self.context, str(self.folder / path)) as source:
            if output not in source.outputs() or source.record(output).text != found.text:
                raise RefusedError(
                    "index",
                    where,
                    f"{path} has another record of {output}",
                    expected="the record that the index names",
                )
            source.libraries(found)

    def _signed(self, about: Statement) -> None:
        if self.signer is not None:
            place = self.folder / about.path
            signed_statement.verify(
                small_file(place, bounds.STATEMENT), about, self.signer, about.path
            )
            self.used[about.path] = place.stat().st_size

    def _file(self, path: str, file: store_entry.File) -> None:
        place = self.folder / path
        if not place.is_file() or place.is_symlink():
            raise RefusedError(
                "missing", path, f"no such file: {file.name}", expected="a plain file"
            )
        self.used[path] = place.stat().st_size
        if self.used[path] != file.size:
            raise RefusedError("size", path, f"{self.used[path]} bytes", expected=f"{file.size}")
        if (found := sha256_of(place)) != file.sha256:
            raise RefusedError("sha256", path, f"sha256 {found}", expected=file.sha256)


def check(folder: Path, context: Context, key: PublicKey | None = None) -> Report:
    """Verify the store ``folder``.

    Args:
        folder: the store.
        context: whose cache the archives' members go through.
        key: of the signer; None takes the one that the store declares, if it does.

    Raises:
        ConfigurationError: it is no store, or nothing here can verify signatures.
    """
    marker = small_file(folder / store_entry.MARKER)
    if marker is None:
        raise ConfigurationError(
            f"{folder} is no store",
            expected=f"a folder with {store_entry.MARKER}",
            remedy="vllm-build publish --store FOLDER",
        )
    run, parts = _Check(folder, context), ["members", "archives", "attestations"]
    try:
        declared = store_entry.check_marker(marker, str(folder))
        run.signer = trust.agreed(declared, key or declared, str(folder), "--key")
    except RefusedError as error:
        run.problems.append(error.message)
        parts.remove("attestations")  # Nobody has looked at them.
    if run.signer is not None:
        signer_keys.library()  # Its absence is no fault of the store's.
    there = sorted((folder / "digests").iterdir()) if (folder / "digests").is_dir() else []
    # A publisher that was killed may have left one, and one that runs now may be writing one. The
    # next publisher removes it.
    documents = [path for path in there if not store_entry.is_unfinished(path)]
    with context.cache.in_use():
        for path in documents:
            run.document(path)
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
