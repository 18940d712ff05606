# SPDX-License-Identifier: Apache-2.0
"""What tests read from a store: its document, members, statements and libraries."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from reuse_files import DIGEST, MACHINE, Build

from vllm_build.reuse.lookup import decisions, offers
from vllm_build.reuse.stores import store_entry

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.reuse.net.reuse_context import Context
    from vllm_build.settings.build_settings import Settings


def document_bytes(store: Path) -> bytes:
    """The document of the default digest."""
    return (store / store_entry.digest_path(DIGEST)).read_bytes()


def document(store: Path) -> dict[str, Any]:
    """The document of the default digest, parsed."""
    found: dict[str, Any] = json.loads(document_bytes(store))
    return found


def member(store: Path, number: int = 1) -> Path:
    """The file of a member of the first build; number 0 is the record."""
    return store / store_entry.member_path(
        document(store)["builds"][0]["members"][number]["sha256"]
    )


def attestations(store: Path) -> dict[str, str]:
    """sha256 of a subject -> the statement about it."""
    return {path.stem: path.read_text(encoding="utf-8") for path in store.glob("attestations/*/*")}


def reuse(ctx: Context, settings: Settings, *, partial: bool = False) -> dict[str, bytes]:
    """Reuse the default build; returns the content of its libraries."""
    with ctx.cache.in_use():
        opened = offers.of_settings(ctx, settings)
        try:
            (decision,) = decisions.make([Build().wanted()], opened, MACHINE, partial=partial)
            assert decision.offer is not None
            assert decision.record is not None
            return {
                name: path.read_bytes()
                for name, path in decision.offer.libraries(decision.record).items()
            }
        finally:
            for source in opened:
                source.close()
