# SPDX-License-Identifier: Apache-2.0
"""The sources of kernels that the settings name: stores, channels, wheels and .conda files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vllm_build.reuse.archives.archive_source import CONDA, WHEEL, ArchiveSource
from vllm_build.reuse.lookup import kernel_channel
from vllm_build.reuse.lookup.kernel_channel import Channel, PackageOffer
from vllm_build.reuse.net.reuse_context import Context, file_name
from vllm_build.reuse.stores import store_entry, trust
from vllm_build.reuse.stores.kernel_store import Base, Store
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.reuse.records.fitness import Machine, Wanted
    from vllm_build.reuse.records.output_record import Record
    from vllm_build.reuse.stores.signer_keys import PublicKey
    from vllm_build.settings.build_settings import Settings


class Offer(Protocol):
    """A build that may be reused."""

    @property
    def where(self) -> str:
        """Its location."""

    def record(self) -> Record:
        """Its record, which is well-formed but not yet compared with the wanted output."""

    def announce(self, record: Record, /) -> None:
        """Announce that its files will be requested, so that an archive's outputs come together."""

    def libraries(self, record: Record, /) -> dict[str, Path]:
        """Its files in the cache, each checked against the record."""


class Source(Protocol):
    """A place that may have kernels.

    Attributes:
        where: its location.
    """

    where: str

    def find(self, wanted: Wanted, machine: Machine) -> Offer | None:
        """The offer for an output; None if there is none."""

    def close(self) -> None:
        """Close open files."""


class Location:
    """One wheel or ``.conda`` file; it offers each of its outputs, regardless of the digest."""

    def __init__(self, context: Context, location: str, sha256: str | None) -> None:
        self.where, self._source = location, ArchiveSource(context, location, sha256)

    def find(self, wanted: Wanted, _: Machine) -> Offer | None:
        """The offer for an output; None if the file does not have it.

        Raises:
            FetchError: the file cannot be fetched. RefusedError: it failed a check.
        """
        return (
            PackageOffer([self._source], wanted)
            if wanted.output in self._source.outputs()
            else None
        )

    def close(self) -> None:
        """Close the file."""
        self._source.__exit__()


def recognise(context: Context, location: str, key: PublicKey | None = None) -> Source:
    """The source at a location in ``VLLM_PRECOMPILED_STORES``.

    The name of a file tells its format. A store has ``store.json``, and a channel has
    ``repodata.json``.

    Args:
        context: of the reuse.
        location: path or address.
        key: required signer; None if the user requires no signature.

    Raises:
        ConfigurationError: the location is none of these. FetchError: it cannot be reached.
        RefusedError: it is another kind of store, or ``key`` does not sign it.
    """
    if file_name(location).endswith((WHEEL, CONDA)):
        if key is not None:
            raise trust.unsigned(location, "a single file")
        return Location(context, location, None)
    base = Base(context, location)
    marker = base.read(store_entry.MARKER)
    if marker is not None:
        return Store(
            base,
            trust.require_signer(
                store_entry.check_marker(marker, base.place(store_entry.MARKER)), key, base.where
            ),
        )
    found = Channel(base)
    if found.exists():
        if key is not None:
            raise trust.unsigned(base.where, "a conda channel")
        return found
    raise ConfigurationError(
        f"{location} is neither a store nor a conda channel",
        expected=f"{store_entry.MARKER} or {kernel_channel.subdir()}/repodata.json there",
        remedy="correct VLLM_PRECOMPILED_STORES, or make a store: "
        "vllm-build publish --store FOLDER",
    )


def of_settings(context: Context, settings: Settings) -> list[Source]:
    """The sources that the settings name: only the location if it is set, else the stores in order.

    Raises:
        ConfigurationError: the settings name no source, or as :func:`recognise`.
        FetchError, RefusedError: as :func:`recognise`.
    """
    if settings.precompiled_location:
        if settings.precompiled_key and not settings.precompiled_sha256:
            raise trust.unsigned(settings.precompiled_location, "a single file")
        return [Location(context, settings.precompiled_location, settings.precompiled_sha256)]
    if settings.precompiled_sha256:
        raise ConfigurationError(
            "VLLM_PRECOMPILED_SHA256 is set, but VLLM_PRECOMPILED_WHEEL_LOCATION is not",
            expected="VLLM_PRECOMPILED_WHEEL_LOCATION, the file with this sha256",
            remedy="set both, or neither",
        )
    if not settings.precompiled_stores:
        raise ConfigurationError(
            "VLLM_USE_PRECOMPILED is set, but no source of precompiled kernels is",
            expected="VLLM_PRECOMPILED_STORES (folders, http indexes, conda channels) or "
            "VLLM_PRECOMPILED_WHEEL_LOCATION (a file)",
            remedy="set one of them, unset VLLM_USE_PRECOMPILED to compile, or set "
            "VLLM_TARGET_DEVICE=empty to install only the Python package",
        )
    key = trust.load_pinned_key(settings)
    return [recognise(context, word, key) for word in settings.precompiled_stores]
