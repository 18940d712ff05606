# SPDX-License-Identifier: Apache-2.0
"""Ed25519 keys of signers, read from PEM files and from ``store.json``.

securesystemslib does the cryptography and the envelopes. It is imported only to make or check a
signature.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vllm_build.reuse.records import bounds
from vllm_build.reuse.records.output_record import Reader
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.files import read_bytes
from vllm_build.util.redaction import excerpt

if TYPE_CHECKING:
    from pathlib import Path

#: For pip's build environments. The tools of in-toto and TUF sign with this library, and it
#: implements DSSE. The extra `crypto` is pyca/cryptography, which reads PEM. Tested with 1.0, the
#: first release with a stable interface.
REQUIREMENT = "securesystemslib[crypto]>=1.0"
VARIABLE = "VLLM_PRECOMPILED_KEY"
_KIND = "ed25519"
_HOW = (
    "openssl genpkey -algorithm ed25519 -out private.pem; openssl pkey -in private.pem -pubout "
    "-out public.pem"
)


@dataclass(frozen=True)
class Library:
    """The modules of securesystemslib and cryptography.

    Attributes:
        dsse: envelopes.
        signer: keys.
        errors: exceptions of securesystemslib.
        pem: reads PEM files.
        pem_errors: exceptions of cryptography.
    """

    dsse: Any
    signer: Any
    errors: Any
    pem: Any
    pem_errors: Any


def library() -> Library:
    """Import the library that makes and checks signatures.

    Raises:
        ConfigurationError: it is not installed.
    """
    names = (
        "securesystemslib.dsse",
        "securesystemslib.signer",
        "securesystemslib.exceptions",
        "cryptography.hazmat.primitives.serialization",
        "cryptography.exceptions",
    )
    try:
        return Library(*map(importlib.import_module, names))
    except ImportError as error:
        raise ConfigurationError(
            f"signatures need securesystemslib, which cannot be imported ({error})",
            expected=f"the package {REQUIREMENT}",
            remedy="pip install 'securesystemslib[crypto]'",
        ) from error


@dataclass(frozen=True)
class PublicKey:
    """An Ed25519 public key: its 32 bytes, hexadecimal."""

    public: str

    def _fields(self) -> dict[str, Any]:
        return {"keytype": _KIND, "scheme": _KIND, "keyval": {"public": self.public}}

    @property
    def keyid(self) -> str:
        """The key's id: the sha256 of its canonical JSON (TUF specification, section 4.2)."""
        return hashlib.sha256(
            json.dumps(self._fields(), sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()

    def declared(self) -> dict[str, Any]:
        """The key as it appears in ``store.json``."""
        return {"keyid": self.keyid, **self._fields()}

    def key(self) -> Any:
        """The key as an object of securesystemslib.

        Raises:
            ConfigurationError: as :func:`library`.
        """
        return library().signer.SSlibKey(self.keyid, **self._fields())


@dataclass(frozen=True)
class SigningKey:
    """A private key.

    Attributes:
        public: the public key, which verifies its signatures.
        signer: an object of securesystemslib.
    """

    public: PublicKey
    signer: Any


def parse(document: Any, where: str) -> PublicKey:
    """Parse the key that a store declares.

    Raises:
        RefusedError: it is malformed, or not an Ed25519 key.
    """
    reader = Reader(document, where, "the signer of the store")
    kind = (reader.text("keytype"), reader.text("scheme"))
    if kind != (_KIND, _KIND):
        raise RefusedError(
            "signature",
            where,
            f"the store declares a signer with the algorithm {excerpt(repr(kind))}",
            expected=_KIND,
        )
    found = PublicKey(
        Reader(document.get("keyval"), where, "the key of the signer").sha256("public")
    )
    if document != found.declared():
        raise RefusedError(
            "signature",
            where,
            f"the store declares a signer with the key id {excerpt(reader.text('keyid'), 64)!r}",
            expected=f"{found.keyid}, the id of that key",
        )
    return found


def _read(path: Path, what: str) -> bytes:
    try:
        return read_bytes(path, bounds.STATEMENT)
    except OSError as error:
        raise ConfigurationError(
            f"{what}: {path}: {error.strerror}", expected="a readable PEM file", remedy=_HOW
        ) from error


def _another(what: str, path: Path, found: str, half: str) -> ConfigurationError:
    return ConfigurationError(
        f"{what}: {path} {found}", expected=f"an Ed25519 {half} key in PEM format", remedy=_HOW
    )


def load_public(path: Path, named: str = VARIABLE) -> PublicKey:
    """Load a public key from a PEM file.

    Args:
        path: of the file.
        named: variable or option that names the file.

    Raises:
        ConfigurationError: the file is unreadable or has no public Ed25519 key; or as
            :func:`library`.
    """
    used, data = library(), _read(path, named)
    if b"PRIVATE KEY" in data:
        raise _another(
            named, path, "has a private key, which only its signer should have", "public"
        )
    try:
        key = used.signer.SSlibKey.from_crypto(used.pem.load_pem_public_key(data))
    except (ValueError, used.pem_errors.UnsupportedAlgorithm) as error:
        raise _another(named, path, "has no public key for signatures", "public") from error
    if key.keytype != _KIND:
        raise _another(named, path, f"has a key for {key.keytype}", "public")
    return PublicKey(key.keyval["public"])


def load_private(path: Path, named: str = "--key") -> SigningKey:
    """Load a private key from an unencrypted PEM file.

    Raises:
        ConfigurationError: the file is unreadable, encrypted or has no private Ed25519 key; or as
            :func:`library`.
    """
    used, data = library(), _read(path, named)
    try:
        signer = used.signer.CryptoSigner(used.pem.load_pem_private_key(data, None))
    except TypeError as error:
        raise _another(
            named, path, "is encrypted, and publishing asks for no password", "private"
        ) from error
    except (ValueError, used.pem_errors.UnsupportedAlgorithm) as error:
        raise _another(named, path, "has no private key for signatures", "private") from error
    if signer.public_key.keytype != _KIND:
        raise _another(named, path, f"has a key for {signer.public_key.keytype}", "private")
    return SigningKey(PublicKey(signer.public_key.keyval["public"]), signer)
