# SPDX-License-Identifier: Apache-2.0
"""Ed25519 keys of signers, from PEM files and from a store's own words.

The arithmetic and the envelopes are securesystemslib's, imported where a signature is made or
checked: nothing else needs it.
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

#: For pip's build environments. It is what in-toto's and TUF's own tools sign with, and has DSSE;
#: `crypto` is pyca/cryptography, which reads PEM. Tried with 1.0, the first with a stable
#: interface.
REQUIREMENT = "securesystemslib[crypto]>=1.0"
VARIABLE = "VLLM_PRECOMPILED_KEY"
_KIND = "ed25519"
_HOW = (
    "openssl genpkey -algorithm ed25519 -out private.pem; openssl pkey -in private.pem -pubout "
    "-out public.pem"
)


@dataclass(frozen=True)
class Library:
    """Modules: of envelopes, of keys, of securesystemslib's errors, of PEM files, and of cryptography's errors."""

    dsse: Any
    signer: Any
    errors: Any
    pem: Any
    pem_errors: Any


def library() -> Library:
    """What makes and checks signatures.

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
            "signatures are made and checked with securesystemslib, which this Python does not "
            f"have ({error})",
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
        """Its name: the sha256 of its canonical JSON (TUF specification, section 4.2)."""
        return hashlib.sha256(
            json.dumps(self._fields(), sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()

    def declared(self) -> dict[str, Any]:
        """As ``store.json`` has it."""
        return {"keyid": self.keyid, **self._fields()}

    def key(self) -> Any:
        """As securesystemslib has it.

        Raises:
            ConfigurationError: of :func:`library`.
        """
        return library().signer.SSlibKey(self.keyid, **self._fields())


@dataclass(frozen=True)
class SigningKey:
    """A private key.

    Attributes:
        public: what verifies its signatures.
        signer: as securesystemslib has it.
    """

    public: PublicKey
    signer: Any


def parse(document: Any, where: str) -> PublicKey:
    """The key that a store declares.

    Raises:
        RefusedError: it is malformed, or of another algorithm than Ed25519.
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
            f"the store declares a signer {excerpt(reader.text('keyid'), 64)!r}",
            expected=f"{found.keyid}, the id of its key",
        )
    return found


def _read(path: Path, what: str) -> bytes:
    try:
        return read_bytes(path, bounds.STATEMENT)
    except OSError as error:
        raise ConfigurationError(
            f"{what}: {path}: {error.strerror}", expected="a PEM file that can be read", remedy=_HOW
        ) from error


def _another(what: str, path: Path, found: str, half: str) -> ConfigurationError:
    return ConfigurationError(
        f"{what}: {path} {found}", expected=f"the {half} half of an Ed25519 key, PEM", remedy=_HOW
    )


def load_public(path: Path, what: str = VARIABLE) -> PublicKey:
    """A public key from a PEM file.

    Args:
        path: of the file.
        what: named it: a variable, an option.

    Raises:
        ConfigurationError: it holds none, or one of another algorithm; or of :func:`library`.
    """
    used, data = library(), _read(path, what)
    if b"PRIVATE KEY" in data:
        raise _another(
            what, path, "holds a private key, which belongs to its signer alone", "public"
        )
    try:
        key = used.signer.SSlibKey.from_crypto(used.pem.load_pem_public_key(data))
    except (ValueError, used.pem_errors.UnsupportedAlgorithm) as error:
        raise _another(what, path, "holds no public key that signs", "public") from error
    if key.keytype != _KIND:
        raise _another(what, path, f"holds a key for {key.keytype}", "public")
    return PublicKey(key.keyval["public"])


def load_private(path: Path, what: str = "--key") -> SigningKey:
    """A private key from a PEM file, without a password.

    Raises:
        ConfigurationError: as :func:`load_public`.
    """
    used, data = library(), _read(path, what)
    try:
        signer = used.signer.CryptoSigner(used.pem.load_pem_private_key(data, None))
    except TypeError as error:
        raise _another(
            what, path, "is encrypted, and nobody may be there to ask for the password", "private"
        ) from error
    except (ValueError, used.pem_errors.UnsupportedAlgorithm) as error:
        raise _another(what, path, "holds no private key that signs", "private") from error
    if signer.public_key.keytype != _KIND:
        raise _another(what, path, f"holds a key for {signer.public_key.keytype}", "private")
    return SigningKey(PublicKey(signer.public_key.keyval["public"]), signer)
