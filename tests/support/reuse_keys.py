# SPDX-License-Identifier: Apache-2.0
"""Keys of signers, and envelopes with any content."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from vllm_build.reuse.stores import signed_statement, signer_keys

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.reuse.stores.signer_keys import SigningKey

PEM, PKCS8, SPKI = Encoding.PEM, PrivateFormat.PKCS8, PublicFormat.SubjectPublicKeyInfo


@dataclass(frozen=True)
class Signer:
    """A pair of keys, as files and as the publisher's object."""

    private: Path
    public: Path
    key: SigningKey


def write_pem(folder: Path, name: str, key: Any, encryption: Any = None) -> tuple[Path, Path]:
    """Write the private and the public key of a pyca/cryptography key to files."""
    folder.mkdir(parents=True, exist_ok=True)
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(PEM, PKCS8, encryption or NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(PEM, SPKI))
    return private, public


def signer(folder: Path, seed: int = 1) -> Signer:
    """A pair of keys; the same seed gives the same pair."""
    private, public = write_pem(
        folder, f"signer-{seed}", Ed25519PrivateKey.from_private_bytes(bytes([seed] * 32))
    )
    return Signer(private, public, signer_keys.load_private(private))


def pae(payload: bytes, payload_type: str = signed_statement.PAYLOAD) -> bytes:
    """The bytes that DSSE signs (protocol.md of the specification), independent of the library."""
    kind = payload_type.encode()
    return (
        b"DSSEv1 "
        + str(len(kind)).encode()
        + b" "
        + kind
        + b" "
        + str(len(payload)).encode()
        + b" "
        + payload
    )


def envelope(
    payload: bytes,
    key: SigningKey,
    payload_type: str = signed_statement.PAYLOAD,
    signed: bytes | None = None,
) -> dict[str, Any]:
    """An envelope with a valid signature of ``payload``, or of ``signed`` instead."""
    # This does not use the code under test.
    sig = key.signer._private_key.sign(pae(payload, payload_type) if signed is None else signed)
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [{"keyid": key.public.keyid, "sig": base64.b64encode(sig).decode()}],
    }


def payload_of(text: str) -> dict[str, Any]:
    """The statement in an envelope."""
    found: dict[str, Any] = json.loads(base64.b64decode(json.loads(text)["payload"]))
    return found
