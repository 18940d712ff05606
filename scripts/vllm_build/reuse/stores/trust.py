# SPDX-License-Identifier: Apache-2.0
"""Whom a reader and a publisher trust.

There is no trust on first use: a key comes from the user, never from the store that it is for.
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


def pinned(settings: Settings) -> PublicKey | None:
    """The key of ``VLLM_PRECOMPILED_KEY``; None when it is unset.

    Raises:
        ConfigurationError: of :func:`vllm_build.reuse.stores.signer_keys.load_public`.
    """
    return signer_keys.load_public(settings.precompiled_key) if settings.precompiled_key else None


def unsigned(where: str, what: str, named: str = signer_keys.VARIABLE) -> RefusedError:
    """The error for what has no signatures, where the user asks for them by ``named``, a variable or an option."""
    pinned = (
        ", or a file that VLLM_PRECOMPILED_SHA256 pins" if named == signer_keys.VARIABLE else ""
    )
    return RefusedError(
        "signature",
        where,
        f"{what} is not signed, and {named} names a key",
        expected=f"a store that is signed with this key{pinned}",
        remedy=f"name such a store (vllm-build publish --key makes one), or do without {named}",
    )


def agreed(
    declared: PublicKey | None, key: PublicKey | None, where: str, named: str = signer_keys.VARIABLE
) -> PublicKey | None:
    """The key that verifies a store; None for a store without signatures where nobody asks for them.

    Args:
        declared: by the store.
        key: that the user trusts.
        where: the store lies.
        named: the key: a variable or an option.

    Raises:
        RefusedError: the user trusts another key or none, or the store is not signed.
    """
    if declared is None:
        if key is not None:
            raise unsigned(where, "the store", named)
        return None
    if key is None:
        raise RefusedError(
            "signature",
            where,
            f"the store is signed by the key {declared.keyid}, and nothing says that this key is "
            "trusted",
            expected=f"{named}, the path of the signer's public key",
            remedy=f"get the public key from the signer, not from the store, and set {named} to "
            "its path",
        )
    if declared != key:
        raise RefusedError(
            "signature",
            where,
            f"the store is signed by the key {declared.keyid}",
            expected=f"{key.keyid}, the key of {named}",
        )
    return key


def require_publisher(
    folder: Path, declared: PublicKey | None, key: SigningKey | None, *, empty: bool
) -> None:
    """Keep one store one signer's.

    Args:
        folder: the store.
        declared: by the store.
        key: of who publishes.
        empty: no digest has a document yet.

    Raises:
        ConfigurationError: the store is another's, or what it has is not signed.
    """
    another = "publish to another folder"
    if declared is not None and key is None:
        raise ConfigurationError(
            f"{folder} is signed by the key {declared.keyid}, and no key was given",
            expected="its private key",
            remedy="add --key FILE",
        )
    if declared is not None and key is not None and declared != key.public:
        raise ConfigurationError(
            f"{folder} is signed by the key {declared.keyid}",
            expected=f"{key.public.keyid}, the key of --key",
            remedy=another,
        )
    if declared is None and key is not None and not empty:
        raise ConfigurationError(
            f"{folder} is a store without signatures, and has builds that nobody signed",
            expected="a signed store, or a folder that is new or empty, with --key",
            remedy=f"{another}, or leave out --key",
        )
