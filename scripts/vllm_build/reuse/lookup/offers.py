# SPDX-License-Identifier: Apache-2.0
"""Where kernels are looked for: what the settings name, each recognised for what it is."""

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
        """Where it was found."""

    def record(self) -> Record:
        """Its record, checked for itself, not yet against what is wanted."""

    def announce(self, record: Record, /) -> None:
        """Say that its files will be asked for, so that several outputs of one archive come together."""

    def libraries(self, record: Record, /) -> dict[str, Path]:
        """Its files in the cache, each checked against the record."""


class Source(Protocol):
    """A place to look for kernels.

    Attributes:
        where: it lies.
    """

    where: str

    def find(self, wanted: Wanted, machine: Machine) -> Offer | None:
        """The offer for an output; None when there is none."""

    def close(self) -> None:
        """Let go of what is open."""


class Location:
    """One wheel or ``.conda`` file: it offers every output that it has, of whatever digest."""

    def __init__(self, context: Context, location: str, sha256: str | None) -> None:
        self.where, self._source = location, ArchiveSource(context, location, sha256)

    def find(self, wanted: Wanted, _: Machine) -> Offer | None:
        """The offer for an output; None when the file has no such output.

        Raises:
            FetchError: it cannot be had. RefusedError: it is not sound.
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
    """What a word of ``VLLM_PRECOMPILED_STORES`` stands for: a store has ``store.json``, a channel has ``repodata.json``.

    Args:
        context: of the reuse.
        location: the word.
        key: whose signature it must have; None when it may have none.

    Raises:
        ConfigurationError: neither is there. FetchError: it cannot be reached.
        RefusedError: a store of another kind, or what is signed by another than ``key``.
    """
    if file_name(location).endswith((WHEEL, CONDA)):
        if key is not None:
            raise trust.unsigned(location, "a file by itself")
        return Location(context, location, None)
    base = Base(context, location)
    marker = base.read(store_entry.MARKER)
    if marker is not None:
        return Store(
            base,
            trust.agreed(
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
        expected=f"{store_entry.MARKER}, or {kernel_channel.subdir()}/repodata.json in it",
        remedy="correct VLLM_PRECOMPILED_STORES, or make a store: vllm-build publish --store "
        "FOLDER",
    )


def of_settings(context: Context, settings: Settings) -> list[Source]:
    """The sources that the environment names: the location alone, else the stores in order.

    Raises:
        ConfigurationError: it names none, or something else. FetchError, RefusedError: of
            :func:`recognise`.
    """
    if settings.precompiled_location:
        if settings.precompiled_key and not settings.precompiled_sha256:
            raise trust.unsigned(settings.precompiled_location, "a file by itself")
        return [Location(context, settings.precompiled_location, settings.precompiled_sha256)]
    if settings.precompiled_sha256:
        raise ConfigurationError(
            "VLLM_PRECOMPILED_SHA256 is set without the file that it is for",
            expected="VLLM_PRECOMPILED_WHEEL_LOCATION",
            remedy="set it as well",
        )
    if not settings.precompiled_stores:
        raise ConfigurationError(
            "VLLM_USE_PRECOMPILED asks for precompiled kernels, and nothing says where they are",
            expected="VLLM_PRECOMPILED_STORES (folders, http indexes, conda channels) or "
            "VLLM_PRECOMPILED_WHEEL_LOCATION (a file)",
            remedy="set one of them, unset VLLM_USE_PRECOMPILED to compile, or "
            "VLLM_TARGET_DEVICE=empty for the Python package alone",
        )
    key = trust.pinned(settings)
    return [recognise(context, word, key) for word in settings.precompiled_stores]
