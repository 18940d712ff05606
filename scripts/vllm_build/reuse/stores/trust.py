# SPDX-License-Identifier: Apache-2.0
"""Decides whether a store's signer is trusted.

There is no trust on first use: a key comes from the user, never from the store that it verifies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import signer_keys
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.reuse.stores.signer_keys import PublicKey, SigningKey
    from vllm_build.settings.build_settings import Settings


def load_pinned_key(settings: Settings) -> PublicKey | None:
    """The key that ``VLLM_PRECOMPILED_KEY`` names; None if it is unset.

    Raises:
        ConfigurationError: as :func:`vllm_build.reuse.stores.signer_keys.load_public`.
    """
    return signer_keys.load_public(settings.precompiled_key) if settings.precompiled_key else None


def unsigned(where: str, kind: str, named: str = signer_keys.VARIABLE) -> RefusedError:
    """The error for a source without signatures when the user requires them.

    Args:
        where: location of the source.
        kind: of the source.
        named: variable or option that names the required key.
    """
    pinned = ", or a file with VLLM_PRECOMPILED_SHA256 set" if named == signer_keys.VARIABLE else ""
    return RefusedError(
        "signature",
        where,
        f"{kind} is not signed, and {named} names a key",
        expected=f"a store that is signed with this key{pinned}",
        remedy=f"name such a store (vllm-build publish --key makes one), or omit {named}",
    )


def require_signer(
    declared: PublicKey | None, key: PublicKey | None, where: str, named: str = signer_keys.VARIABLE
) -> PublicKey | None:
    """The key that verifies a store; None if it has no signatures and the user requires none.

    Args:
        declared: the key that the store declares; None for a store without signatures.
        key: the key that the user trusts; None if the user named none.
        where: location of the store.
        named: variable or option that names ``key``.

    Raises:
        RefusedError: the store is signed and the user trusts another key or none, or the store is
            not signed and the user requires a signature.
    """
    if declared is None:
        if key is not None:
            raise unsigned(where, "the store", named)
        return None
    if key is None:
        raise RefusedError(
            "signature",
            where,
            f"the store is signed with the key {declared.keyid}, and no trusted key was given",
            expected=f"{named}, the path of the signer's public key",
            remedy="get the public key from the signer, not from the store, "
            f"and set {named} to its path",
        )
    if declared != key:
        raise RefusedError(
            "signature",
            where,
            f"the store is signed with the key {declared.keyid}",
            expected=f"{key.keyid}, the key that {named} names",
        )
    return key


def require_publisher(
    folder: Path, declared: PublicKey | None, key: SigningKey | None, *, empty: bool
) -> None:
    """Make sure that a store has one signer.

    Args:
        folder: the store.
        declared: the key that the store declares; None for a store without signatures.
        key: the publisher's key; None if there is none.
        empty: the store has no documents yet.

    Raises:
        ConfigurationError: the store has another signer, or has unsigned documents.
    """
    another = "publish to another folder"
    if declared is not None and key is None:
        raise ConfigurationError(
            f"{folder} is signed with the key {declared.keyid}, and no key was given",
            expected="its private key",
            remedy="add --key FILE",
        )
    if declared is not None and key is not None and declared != key.public:
        raise ConfigurationError(
            f"{folder} is signed with the key {declared.keyid}",
            expected=f"{key.public.keyid}, the key that --key names",
            remedy=another,
        )
    if declared is None and key is not None and not empty:
        raise ConfigurationError(
            f"{folder} is a store without signatures and already has unsigned builds",
            expected="a signed store, or a new or empty folder, with --key",
            remedy=f"{another}, or omit --key",
        )
