# SPDX-License-Identifier: Apache-2.0
"""Packages that other channels have: found by their whole name, which holds the digests of all that shapes them, and taken as they are."""

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
    """Compare what the package says of itself with its name: our index will list what it says."""
    try:
        said = IndexJson.from_package_archive(path)
    except (
        Exception
    ) as error:  # rattler raises exceptions of many kinds over what somebody else wrote
        raise RefusedError(
            "index",
            str(path),
            f"its info/index.json cannot be read: {error}",
            expected="what conda packages hold",
        ) from error
    found = (said.name.normalized, str(said.version), str(said.build), said.subdir)
    wanted = (output.name, output.version, output.build, output.subdir)
    if found != wanted:
        raise RefusedError(
            "index",
            str(path),
            f"its info/index.json says {' '.join(map(str, found))}",
            expected=" ".join(wanted),
        )


def _check_record(context: Context, path: Path, output: Output, digest: str | None) -> None:
    """Compare the record inside with what this tree's build would write."""
    if digest is None:
        return
    with ArchiveSource(context, str(path)) as archive:
        if output.name not in archive.outputs():
            raise RefusedError(
                "missing",
                str(path),
                f"no record of {output.name}",
                expected="the output that its name says",
            )
        found = archive.record(output.name).digest
    if found != digest:
        raise RefusedError(
            "digest",
            str(path),
            f"it was built from {found[:12]}",
            expected=f"{digest[:12]}, the build digest of this tree",
        )


def take(
    context: Context,
    locations: Sequence[str],
    outputs: Sequence[Output],
    digests: Mapping[str, str],
    folder: Path,
) -> dict[Path, str]:
    """Put those of ``outputs`` into the channel ``folder`` that one of the locations has; what none has is not an error.

    Args:
        context: cache, transport, progress.
        locations: conda channels, by path or address, in the order in which they are asked.
        outputs: that are wanted.
        digests: build digest by output, for those with libraries.
        folder: a channel.

    Returns:
        Each package in ``folder``, and the channel it came from.

    Raises:
        ConfigurationError: a location is no channel. FetchError: one cannot be reached, or lacks a
            file that it lists.
        RefusedError: a package is not what the index or its name says; nothing has been put
            anywhere.
    """
    waiting = list(outputs)
    taken: dict[Path, str] = {}
    with context.cache.in_use(), context.cache.incoming() as arrived:
        for location in locations:
            base = Base(context, location)
            indexes = {subdir: read_index(base, subdir) for subdir in channel_index.SUBDIRS}
            if not any(index is not None for index in indexes.values()):
                raise ConfigurationError(
                    f"REUSE: {location} is no conda channel",
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
