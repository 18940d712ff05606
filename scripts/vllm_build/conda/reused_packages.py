# SPDX-License-Identifier: Apache-2.0
"""Takes packages from other channels.

A package's name contains the digests of all its inputs, so a package with an expected name is taken
unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rattler.package import IndexJson

from vllm_build.packing import channel_index
from vllm_build.reuse.archives.archive_source import ArchiveSource
from vllm_build.reuse.lookup.kernel_channel import read_index
from vllm_build.reuse.records import bounds
from vllm_build.reuse.records.output_record import SHA256
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import store_entry
from vllm_build.reuse.stores.kernel_store import Base
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.redaction import excerpt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vllm_build.conda.recipe_outputs import Output
    from vllm_build.reuse.net.reuse_context import Context


def _file(base: Base, output: Output, package: object) -> store_entry.File:
    sha256, size = (
        (package.get(key) for key in ("sha256", "size"))
        if isinstance(package, dict)
        else (None, None)
    )
    if not isinstance(sha256, str) or not SHA256.fullmatch(sha256) or type(size) is not int:
        raise RefusedError(
            "index",
            base.where,
            f"the index lists {output.filename} with {excerpt(repr(package), 300)}",
            expected="its sha256 and its size",
        )
    bounds.check_size(size, bounds.ARCHIVE, base.where, output.filename)
    return store_entry.File(output.filename, sha256, size)


def _check_name(path: Path, output: Output) -> None:
    """Compare the package's metadata, which our index will list, with its name."""
    try:
        index = IndexJson.from_package_archive(path)
    except Exception as error:  # for a malformed package, rattler raises exceptions of many kinds
        raise RefusedError(
            "index",
            str(path),
            f"its info/index.json cannot be read: {error}",
            expected="the metadata of a conda package",
        ) from error
    found = (index.name.normalized, str(index.version), str(index.build), index.subdir)
    wanted = (output.name, output.version, output.build, output.subdir)
    if found != wanted:
        raise RefusedError(
            "index",
            str(path),
            f"its info/index.json says {' '.join(map(str, found))}",
            expected=" ".join(wanted),
        )


def _check_record(context: Context, path: Path, output: Output, digest: str | None) -> None:
    """Compare the record in the package with the build digest of this tree."""
    if digest is None:
        return
    with ArchiveSource(context, str(path)) as archive:
        if output.name not in archive.outputs():
            raise RefusedError(
                "missing",
                str(path),
                f"no record of {output.name}",
                expected="the output in the package's name",
            )
        found = archive.record(output.name).digest
    if found != digest:
        raise RefusedError(
            "digest",
            str(path),
            f"its build digest is {found[:12]}",
            expected=f"{digest[:12]}, the build digest of this tree",
        )


def take(
    context: Context,
    locations: Sequence[str],
    outputs: Sequence[Output],
    digests: Mapping[str, str],
    folder: Path,
) -> dict[Path, str]:
    """Copy packages from other channels into the channel ``folder``.

    Packages that no channel has are left out.

    Args:
        context: cache, transport, progress.
        locations: conda channels by path or address, in the order of the lookup.
        outputs: the packages to look up.
        digests: build digests of the outputs that have libraries.
        folder: the target channel.

    Returns:
        Path in ``folder`` -> the channel that the package came from.

    Raises:
        ConfigurationError: a location is not a channel. FetchError: a channel cannot be reached, or
            lacks a file that it lists.
        RefusedError: a package differs from its channel's index or from its name; ``folder`` is
            unchanged.
    """
    waiting = list(outputs)
    taken: dict[Path, str] = {}
    with context.cache.in_use(), context.cache.incoming() as arrived:
        for location in locations:
            base = Base(context, location)
            indexes = {subdir: read_index(base, subdir) for subdir in channel_index.SUBDIRS}
            if not any(index is not None for index in indexes.values()):
                raise ConfigurationError(
                    f"REUSE: {location} is not a conda channel",
                    expected=" or ".join(f"{s}/repodata.json" for s in indexes),
                )
            for output in list(waiting):
                package = (indexes[output.subdir] or {}).get(output.filename)
                if package is None:
                    continue
                cached = base.file(
                    f"{output.subdir}/{output.filename}", _file(base, output, package)
                )
                path = arrived / output.subdir / output.filename
                path.parent.mkdir(exist_ok=True)
                path.symlink_to(cached)
                _check_name(path, output)
                _check_record(context, path, output, digests.get(output.name))
                taken[path] = base.where
                waiting.remove(output)
        published = channel_index.publish(taken, folder) if taken else []
    return dict(zip(published, taken.values(), strict=True))
