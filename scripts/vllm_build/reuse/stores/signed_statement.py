# SPDX-License-Identifier: Apache-2.0
"""Signed statements about files of a store.

A statement is an in-toto Statement v1 in a DSSE envelope with one Ed25519 signature. It names its
subject by path and sha256, so it is valid only for these bytes at this path. It contains no time,
so signing the same document twice gives the same statement.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vllm_build.reuse.records import bounds
from vllm_build.reuse.records.output_record import Reader, load_json
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import signer_keys, store_entry
from vllm_build.util.redaction import excerpt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllm_build.reuse.stores.signer_keys import PublicKey, SigningKey

#: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
TYPE = "https://in-toto.io/Statement/v1"
#: https://github.com/in-toto/attestation/blob/main/spec/v1/envelope.md
PAYLOAD = "application/vnd.in-toto+json"
#: This project's predicate: `output` and `buildDigest` of a document (docs/precompiled.md).
KERNELS = "https://github.com/vllm-project/vllm/attestations/kernels/v1"
#: CEP 27. Its one subject is the package under its file name. It has no predicate, because that
#: would name a channel, and a store is not one.
PUBLISH = "https://schemas.conda.org/attestations-publish-1.schema.json"


@dataclass(frozen=True)
class Statement:
    """A statement about a file.

    Attributes:
        name: of the subject.
        sha256: of the subject.
        kind: the type of the predicate.
        predicate: further facts about the subject.
    """

    name: str
    sha256: str
    kind: str
    predicate: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The path of the statement in a store."""
        return store_entry.attestation_path(self.sha256)

    def payload(self) -> bytes:
        """The statement as JSON, without the envelope."""
        document: dict[str, Any] = {
            "_type": TYPE,
            "subject": [{"name": self.name, "digest": {"sha256": self.sha256}}],
            "predicateType": self.kind,
        }
        if self.predicate:
            document["predicate"] = dict(self.predicate)
        return json.dumps(document, sort_keys=True).encode()


def of_document(output: str, digest: str, data: bytes) -> Statement:
    """The statement about the document of a digest, which names every file by its sha256."""
    name = store_entry.digest_path(digest)
    return Statement(
        name, hashlib.sha256(data).hexdigest(), KERNELS, {"output": output, "buildDigest": digest}
    )


def of_package(package: store_entry.File) -> Statement:
    """The statement about a conda package (CEP 27)."""
    return Statement(package.name, package.sha256, PUBLISH)


def sign(statement: Statement, key: SigningKey) -> str:
    """Sign a statement; returns its envelope as JSON.

    Raises:
        ConfigurationError: as :func:`vllm_build.reuse.stores.signer_keys.library`.
    """
    envelope = signer_keys.library().dsse.Envelope(statement.payload(), PAYLOAD, {})
    envelope.sign(key.signer)
    return json.dumps(envelope.to_dict(), indent=2, sort_keys=True) + "\n"


def verify(data: bytes | None, expected: Statement, key: PublicKey, where: str) -> None:
    """Check that an envelope has the expected statement and a signature by ``key``.

    Fields that in-toto does not define are ignored, as its specification demands.

    Args:
        data: the envelope; None if it is missing.
        expected: the statement.
        key: of the signer.
        where: location of the envelope.

    Raises:
        RefusedError: the envelope is missing, malformed, signed by another key or not signed, or
            has another statement.
        ConfigurationError: as :func:`vllm_build.reuse.stores.signer_keys.library`.
    """
    if data is None:
        raise RefusedError(
            "signature",
            where,
            f"there is no statement about {expected.name} with sha256 {expected.sha256}",
            expected=f"a statement signed with the key {key.keyid}",
            remedy="the file was changed or never signed: ask the signer; `vllm-build store "
            "check` verifies a whole store",
        )
    bounds.check_size(len(data), bounds.STATEMENT, where, "the statement")
    payload = _verified_payload(load_json(data, where, "the statement"), key, where)
    _compare(load_json(payload, where, "the payload of the statement"), expected, where)


def _verified_payload(document: dict[str, Any], key: PublicKey, where: str) -> bytes:
    """Verify the signature of an envelope, and return its payload."""
    reader = Reader(document, where, "the statement")
    if (kind := reader.text("payloadType")) != PAYLOAD:
        raise RefusedError(
            "statement",
            where,
            f"the envelope has the payload type {excerpt(kind, 100)!r}",
            expected=PAYLOAD,
        )
    if len(found := reader.items("signatures", bounds.MEMBERS)) != 1:
        raise RefusedError(
            "signature",
            where,
            f"the statement has {len(found)} signatures",
            expected=f"one signature, by the key {key.keyid}",
        )
    one = Reader(found[0], where, "the signature")
    if (keyid := one.text("keyid")) != key.keyid:
        raise RefusedError(
            "signature",
            where,
            f"the statement is signed with the key {excerpt(keyid, 100)!r}",
            expected=key.keyid,
        )
    plain = {
        "payload": reader.text("payload"),
        "payloadType": kind,
        "signatures": [{"keyid": keyid, "sig": one.text("sig")}],
    }
    used = signer_keys.library()
    try:
        envelope = used.dsse.Envelope.from_dict(plain)
    except ValueError as error:
        raise RefusedError(
            "document",
            where,
            f"the statement is not valid base64: {error}",
            expected="base64 in payload and sig",
        ) from error
    try:
        envelope.verify([key.key()], 1)
    except used.errors.UnverifiedSignatureError as error:
        raise RefusedError(
            "signature",
            where,
            "the signature does not match the statement",
            expected=f"the signature of these bytes by the key {keyid}",
        ) from error
    payload: bytes = envelope.payload
    return payload


def _compare(said: dict[str, Any], expected: Statement, where: str) -> None:
    if (kind := said.get("_type")) != TYPE:
        raise RefusedError(
            "statement",
            where,
            f"the payload has the type {excerpt(str(kind), 100)!r}",
            expected=TYPE,
        )
    if (kind := said.get("predicateType")) != expected.kind:
        raise RefusedError(
            "statement",
            where,
            f"the predicate has the type {excerpt(str(kind), 100)!r}",
            expected=expected.kind,
        )
    subjects = said.get("subject")
    first = subjects[0] if isinstance(subjects, list) and len(subjects) == 1 else None
    if not isinstance(first, dict) or (first.get("name"), first.get("digest")) != (
        expected.name,
        {"sha256": expected.sha256},
    ):
        raise RefusedError(
            "statement",
            where,
            f"the statement is about {excerpt(str(subjects), 300)}",
            expected=f"{expected.name} with sha256 {expected.sha256}",
        )
    predicate = said.get("predicate")
    found = {
        name: predicate.get(name) if isinstance(predicate, dict) else None
        for name in expected.predicate
    }
    if found != expected.predicate:
        raise RefusedError(
            "statement",
            where,
            f"the predicate is {excerpt(str(found), 300)}",
            expected=str(expected.predicate),
        )
